include { prepareMemory ; prepareTime } from '../../../subworkflows/local/utils_resources/main'

process PREPARE {
    tag "${meta.id}"
    // its warnings about the data belong on the console
    debug true
    label 'process_low'
    memory { prepareMemory(input) * task.attempt }
    time { prepareTime(input) * task.attempt }
    container "${params.container_prefix}base:${workflow.manifest.version}"

    input:
    tuple val(meta), path(input, stageAs: 'input/*'), path(cell_table, stageAs: 'cell_table/*')
    path catalogue

    output:
    tuple val(meta), path("${meta.id}/counts.h5ad"), path("${meta.id}/tables"), emit: prepared
    tuple val("${task.process}"), val('anndata'), eval("python3 -c 'import importlib.metadata as m; print(m.version(\"anndata\"))' 2>/dev/null || echo 'not installed'"), emit: versions_anndata, topic: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    // the row of the sheet travels as a file: a title may hold any character
    """
    cat > row.json <<'ROW'
    ${groovy.json.JsonOutput.toJson(meta.row)}
    ROW
    prepare_dataset.py --row row.json --input input/* ${cell_table ? '--cell-table cell_table/*' : ''} --catalogue ${catalogue} \\
        --outdir ${meta.id} ${task.ext.args ?: ''}
    """

    stub:
    """
    mkdir -p ${meta.id}/tables
    touch ${meta.id}/counts.h5ad ${meta.id}/tables/cells.parquet
    """
}
