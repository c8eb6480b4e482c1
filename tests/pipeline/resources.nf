// prints what tasks of some sizes ask for, and which EVALUATE an embedding has, for test_resources.py

include { embedMemory ; evaluateMemory ; evaluateTime ; prepareMemory ; summaryMemory ; summaryTime } from '../../subworkflows/local/utils_resources/main'
include { evaluateMetas } from '../../subworkflows/local/utils_plumbline/main'

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
        no_items: summaryMemory([]),
        items: summaryMemory([file(params.tar), file(params.tar)]),
        one_item_table: summaryMemory(file(params.tar)),
        minutes_of_items: summaryTime([file(params.tar), file(params.tar)]),
        gpu: embedMemory([device: 'gpu'], file(params.h5ad)),
    ]
    def meta = [id: 'd.random', dataset: 'd', seeds: '42,43', n_cells: params.n_cells, n_dimensions: 64]
    def opts = [protocols: 'paper,corrected', n_draws: 9, n_boot: 9, max_together: 10]
    [true, false].each { split ->
        evaluateMetas(meta, ['recall'], [recall: 'ab12'], [[experiment: '']], opts, [recall: [uses_split: split]]).each { one -> println("EVALUATE ${split ? 'split' : 'all'} ${one.id} ${one.seeds} ${one.protocols}") }
    }
    [10, 0].each { most ->
        evaluateMetas(meta + [n_cells: 1000], ['recall', 'map'], [recall: 'ab12', map: 'cd34'], [[experiment: '']], opts + [max_together: most], [recall: [:], map: [:]]).each { one -> println("SMALL ${most} ${one.id} ${one.seeds} ${one.protocols} ${one.tasks.collect { part -> "${part.id}:${part.code}" }.join(' ')}") }
    }
    shown.each { name, value -> println("${name}=${name.startsWith('minutes') ? value.toMinutes() : value.toMega()}") }
}
