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
        layer: meta.layer_of
        gpu: meta.device == 'gpu'
        cpu: true
    }
    EMBED_CPU(ch_by_device.cpu)
    EMBED_GPU(ch_by_device.gpu)

    // [ 'kang.geneformer_v1.layer4', kang.geneformer_v1.layer4.npz, kang.geneformer_v1.layer4.json ]
    ch_states = EMBED_CPU.out.layers
        .mix(EMBED_GPU.out.layers)
        .flatMap { _meta, files -> files.groupBy { file -> file.baseName }.collect { id, pair -> [id] + pair.sort { file -> file.extension }.reverse() } }
    ch_layers = ch_by_device.layer
        .map { meta, _counts, _tables, _weights, _source -> [meta.id, meta] }
        .join(ch_states)
        .map { _id, meta, values, provenance -> [meta, values, provenance] }

    emit:
    embeddings = EMBED_CPU.out.embedding.mix(EMBED_GPU.out.embedding, ch_layers) // [ meta, embedding.npz, embedding.json ]
    gpus_free = EMBED_GPU.out.embedding.toList().map { _all -> 'free' } // 'free', once
}
