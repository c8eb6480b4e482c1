//
// Every embedding of every data set. The only Nextflow file that names models.
//

include { EMBED_CELLPLM } from '../../../modules/local/embed/cellplm/main'
include { EMBED_CONTROL } from '../../../modules/local/embed/control/main'
include { EMBED_EXPRESSION } from '../../../modules/local/embed/expression/main'
include { EMBED_EXTERNAL } from '../../../modules/local/embed/external/main'
include { EMBED_GENEFORMER } from '../../../modules/local/embed/geneformer/main'
include { EMBED_GENE_VECTORS } from '../../../modules/local/embed/gene_vectors/main'
include { EMBED_PCA } from '../../../modules/local/embed/pca/main'
include { EMBED_SCGPT } from '../../../modules/local/embed/scgpt/main'
include { EMBED_SCVI } from '../../../modules/local/embed/scvi/main'
include { EMBED_UCE } from '../../../modules/local/embed/uce/main'

workflow EMBED {
    take:
    ch_requests // [ meta, counts.h5ad, tables, weights, source ]: [ [id: 'kang.pca.42', dataset: 'kang', model: 'pca', ...], .., [], [] ]

    main:
    ch_by_model = ch_requests.branch { meta, _counts, _tables, _weights, _source ->
        cellplm: meta.model == 'cellplm'
        control: meta.model == 'control'
        expression: meta.model == 'expression'
        external: meta.model == 'external'
        geneformer: meta.model == 'geneformer'
        gene_vectors: meta.model == 'gene_vectors'
        pca: meta.model == 'pca'
        scgpt: meta.model == 'scgpt'
        scvi: meta.model == 'scvi'
        uce: meta.model == 'uce'
    }
    EMBED_CELLPLM(ch_by_model.cellplm)
    EMBED_CONTROL(ch_by_model.control)
    EMBED_EXPRESSION(ch_by_model.expression)
    EMBED_EXTERNAL(ch_by_model.external)
    EMBED_GENEFORMER(ch_by_model.geneformer)
    EMBED_GENE_VECTORS(ch_by_model.gene_vectors)
    EMBED_PCA(ch_by_model.pca)
    EMBED_SCGPT(ch_by_model.scgpt)
    EMBED_SCVI(ch_by_model.scvi)
    EMBED_UCE(ch_by_model.uce)

    ch_embeddings = EMBED_PCA.out.embedding.mix(
        EMBED_SCVI.out.embedding,
        EMBED_EXPRESSION.out.embedding,
        EMBED_CONTROL.out.embedding,
        EMBED_EXTERNAL.out.embedding,
        EMBED_SCGPT.out.embedding,
        EMBED_GENEFORMER.out.embedding,
        EMBED_CELLPLM.out.embedding,
        EMBED_UCE.out.embedding,
        EMBED_GENE_VECTORS.out.embedding,
    )

    emit:
    embeddings = ch_embeddings // [ meta, embedding.npz, embedding.json ]
}
