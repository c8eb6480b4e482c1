include { jsonArguments } from '../../../../subworkflows/local/utils_arguments/main'
include { keepReason } from '../../../../subworkflows/local/utils_failures/main'

process RECALL_GENES {
    tag "${meta.id}"
    label 'env_base'
    label 'process_medium'
    errorStrategy { keepReason(task, "${meta.id}.gene_recall") }
    container "${params.container_prefix}base:${workflow.manifest.version}"

    input:
    tuple val(meta), path(counts), path(tables), path(gene_tables, stageAs: 'gene_tables/*')

    output:
    tuple val(meta), path("${meta.id}.gene_recall.parquet"), emit: recall
    tuple val("${task.process}"), val('numpy'), eval("python3 -c 'import importlib.metadata as m; print(m.version(\"numpy\"))' 2>/dev/null || echo 'not installed'"), emit: versions, topic: versions

    script:
    """
    cat > arguments.json <<'ARGUMENTS'
    ${jsonArguments([dataset: meta.id, seed: meta.seed, 'n-boot': meta.n_boot])}
    ARGUMENTS
    recall_genes.py @arguments.json --counts ${counts} --tables ${tables} ${gene_tables ? '--gene-tables gene_tables/*' : ''} \\
        --threads ${task.cpus} ${task.ext.args ?: ''} --output ${meta.id}
    """

    stub:
    """
    touch ${meta.id}.gene_recall.parquet
    """
}
