// prints what tasks of some sizes ask for, for test_resources.py

include { embedMemory ; evaluateMemory ; evaluateTime ; prepareMemory } from '../../subworkflows/local/utils_resources/main'

workflow {
    def sizes = [n_cells: 2_000_000, n_genes: 8000, n_dimensions: 256, seeds: '42']
    def shown = [
        stub: evaluateMemory([seeds: '42'], []),
        large: evaluateMemory(sizes, []),
        wide: evaluateMemory(sizes + [n_dimensions: 1280], []),
        with_counts: evaluateMemory(sizes, [1]),
        hours: evaluateTime(sizes),
        hours_of_two_seeds: evaluateTime(sizes + [seeds: '42,43']),
        h5ad: prepareMemory([name: 'a.h5ad', size: { 20_000_000_000 }]),
        mtx: prepareMemory([name: 'a.tar', size: { 1_000_000_000 }]),
        gpu: embedMemory([device: 'gpu'], [size: { 4_000_000_000 }]),
    ]
    shown.each { name, value -> println("${name}=${value.toUnit(value instanceof nextflow.util.MemoryUnit ? 'MB' : 'm')}") }
}
