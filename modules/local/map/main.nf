include { jsonArguments } from '../../../subworkflows/local/utils_arguments/main'
include { keepReason } from '../../../subworkflows/local/utils_failures/main'

process MAP {
    tag "${meta.id}"
    label 'process_medium'
    errorStrategy { keepReason(task, "${meta.id}.maps") }
    container "${params.container_prefix}base:${workflow.manifest.version}"

    input:
    tuple val(meta), path(embeddings, stageAs: 'embeddings/*'), path(provenance, stageAs: 'embeddings/*'), path(tables)

    output:
    path 'maps/*.parquet', emit: tables
    tuple val("${task.process}"), val('umap-learn'), eval("python3 -c 'import importlib.metadata as m; print(m.version(\"umap-learn\"))' 2>/dev/null || echo 'not installed'"), emit: versions_umap_learn, topic: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    """
    cat > arguments.json <<'ARGUMENTS'
    ${jsonArguments([dataset: meta.id])}
    ARGUMENTS
    map_cells.py @arguments.json \\
        --embeddings embeddings --tables ${tables} \\
        --threads ${task.cpus} ${task.ext.args ?: ''} --outdir maps
    """

    stub:
    """
    mkdir maps
    touch maps/${meta.id}.cells.parquet
    """
}
