include { jsonArguments } from '../../../../subworkflows/local/utils_arguments/main'
include { keepReason } from '../../../../subworkflows/local/utils_failures/main'

process ABLATE_INTEGRITY {
    tag "${meta.id}"
    label 'process_single'
    errorStrategy { keepReason(task, meta.id) }
    container "${params.container_prefix}base:${workflow.manifest.version}"

    input:
    tuple val(meta), path(counts), path(tables)

    output:
    tuple val(meta), path("${meta.id}.integrity.parquet"), path("${meta.id}.integrity.json"), emit: ablated
    tuple val("${task.process}"), val('numpy'), eval("python3 -c 'import importlib.metadata as m; print(m.version(\"numpy\"))' 2>/dev/null || echo 'not installed'"), emit: versions_numpy, topic: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    """
    cat > arguments.json <<'ARGUMENTS'
    ${jsonArguments(meta.subMap(['seed']))}
    ARGUMENTS
    ablate_integrity.py @arguments.json --counts ${counts} --tables ${tables} ${task.ext.args ?: ''} --output ${meta.id}
    """

    stub:
    """
    touch ${meta.id}.integrity.parquet ${meta.id}.integrity.json
    """
}
