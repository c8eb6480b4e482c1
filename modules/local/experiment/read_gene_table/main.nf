include { jsonArguments } from '../../../../subworkflows/local/utils_arguments/main'
include { keepReason } from '../../../../subworkflows/local/utils_failures/main'

process READ_GENE_TABLE {
    tag "${meta.variant}"
    label 'process_medium'
    beforeScript { task.ext.env_dir ? "export PATH='${task.ext.env_dir}/${meta.env}/bin':\$PATH" : '' }
    errorStrategy { keepReason(task, "${meta.variant}.gene_table") }
    container "${params.container_prefix}${meta?.env ?: 'base'}:${workflow.manifest.version}"

    input:
    tuple val(meta), path(weights, stageAs: 'weights/*')

    output:
    path "${meta.variant}.npz", optional: true, emit: table
    tuple val("${task.process}"), val("${meta.env}"), eval("python3 -c 'import importlib.metadata as m; print(m.version(\"numpy\"))' 2>/dev/null || echo 'not installed'"), emit: versions, topic: versions

    script:
    """
    cat > arguments.json <<'ARGUMENTS'
    ${jsonArguments(meta.subMap(['model', 'variant']) + [set: meta.settings])}
    ARGUMENTS
    read_gene_table.py @arguments.json --weights weights/* ${task.ext.args ?: ''} --output ${meta.variant}.npz
    """

    stub:
    """
    touch ${meta.variant}.npz
    """
}
