// prints what tasks of some sizes ask for, for test_resources.py

include { embedMemory ; evaluateMemory ; evaluateTime ; prepareMemory } from '../../subworkflows/local/utils_resources/main'

workflow {
    def sizes = [n_cells: 2_000_000, n_genes: 8000, n_dimensions: 256, seeds: '42']
    def shown = [
        stub: evaluateMemory([seeds: '42'], []),
        large: evaluateMemory(sizes, []),
        wide: evaluateMemory(sizes + [n_dimensions: 1280], []),
        with_counts: evaluateMemory(sizes, [1]),
        minutes: evaluateTime(sizes),
        minutes_of_two_seeds: evaluateTime(sizes + [seeds: '42,43']),
        h5ad: prepareMemory(file(params.h5ad)),
        mtx: prepareMemory(file(params.tar)),
        gpu: embedMemory([device: 'gpu'], file(params.h5ad)),
    ]
    shown.each { name, value -> println("${name}=${name.startsWith('minutes') ? value.toMinutes() : value.toMega()}") }
}
