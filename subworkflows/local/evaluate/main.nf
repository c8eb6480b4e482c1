//
// Every embedding on every task. All tasks of a small embedding share a process, EVALUATE_TOGETHER; others have one each, aliased
// by where it runs, as EMBED is.
//

include { EVALUATE as EVALUATE_CPU } from '../../../modules/local/evaluate/main'
include { EVALUATE as EVALUATE_GPU } from '../../../modules/local/evaluate/main'
include { EVALUATE as EVALUATE_TOGETHER } from '../../../modules/local/evaluate/main'

// what one file of results of a process is called -> that file
def byName(files) {
    return files.collectEntries { path -> [path.name, path] }
}

workflow EVALUATE {
    take:
    ch_evaluations // [ meta, embedding, provenance, tables, counts ]: [ [id: 'kang.pca.42', tasks: [[id: 'kang.pca.42.recall', task: 'recall', ...], ...], ...], .., ]
    ch_gpus_free // 'free', once, when no embedding needs the GPUs any more

    main:
    ch_by_size = ch_evaluations
        .map { meta, embedding, provenance, tables, counts -> [meta, embedding, provenance, tables, meta.tasks.any { one -> one.counts } ? counts : []] }
        .branch { meta, _embedding, _provenance, _tables, _counts ->
            together: meta.tasks.size() > 1
            alone: true
        }
    EVALUATE_TOGETHER(ch_by_size.together)
    ch_done = EVALUATE_TOGETHER.out.scores.map { meta, scores, items -> [meta.id, byName(scores), byName(items)] }
    ch_together = ch_by_size.together
        .map { row -> [row[0].id, row] }
        .join(ch_done)
        .flatMap { _id, row, scores, items -> row[0].tasks.collect { one -> [one, row, scores["${one.id}.scores.parquet".toString()], items["${one.id}.items.parquet".toString()]] } }
        .branch { _one, _row, scores, items ->
            done: scores && items
            lost: true
        }
    // a task that did not end well in company has its retries, its message and its row alone
    ch_lost = ch_together.lost.map { one, row, _scores, _items -> [row[0] + [id: one.id, tasks: [one]], row[1], row[2], row[3], one.counts ? row[4] : []] }
    ch_by_device = ch_by_size.alone
        .mix(ch_lost)
        .branch { meta, _embedding, _provenance, _tables, _counts ->
            gpu: meta.device == 'gpu'
            cpu: true
        }
    EVALUATE_CPU(ch_by_device.cpu)
    EVALUATE_GPU(ch_by_device.gpu.combine(ch_gpus_free).map { row -> row.take(5) })
    ch_alone = EVALUATE_CPU.out.scores.mix(EVALUATE_GPU.out.scores).map { meta, scores, items -> [meta, scores[0], items[0]] }

    emit:
    scores = ch_alone.mix(ch_together.done.map { one, _row, scores, items -> [one, scores, items] }) // [ [id: 'kang.pca.42.recall', ...], scores.parquet, items.parquet ]
}
