//
// Every embedding of every data set. Which model runs where is said in assets/models.csv: its script, environment and device.
//

include { EMBED_MODEL as EMBED_CPU } from '../../../modules/local/embed/main'
include { EMBED_MODEL as EMBED_GPU } from '../../../modules/local/embed/main'

workflow EMBED {
    take:
    ch_requests // [ meta, counts.h5ad, tables, weights, source ]: [ [id: 'kang.pca.42', dataset: 'kang', model: 'pca', ...], .., [], [] ]

    main:
    ch_by_device = ch_requests.branch { meta, _counts, _tables, _weights, _source ->
        gpu: meta.device == 'gpu'
        cpu: true
    }
    EMBED_CPU(ch_by_device.cpu)
    EMBED_GPU(ch_by_device.gpu)

    emit:
    embeddings = EMBED_CPU.out.embedding.mix(EMBED_GPU.out.embedding) // [ meta, embedding.npz, embedding.json ]
}
