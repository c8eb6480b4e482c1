include { keepReason } from '../../../../subworkflows/local/utils_failures/main'

process DESCRIBE_COUNTS {
    tag "${meta.id}"
    label 'process_medium'
    errorStrategy { keepReason(task, meta.id) }
    container "${params.container_prefix}base:${workflow.manifest.version}"

    input:
    tuple val(meta), path(counts), path(tables)

    output:
    tuple val(meta), path("${meta.id}.count_distribution.parquet"), path("${meta.id}.count_distribution.json"), emit: described
    tuple val("${task.process}"), val('numpy'), eval("python3 -c 'import importlib.metadata as m; print(m.version(\"numpy\"))' 2>/dev/null || echo 'not installed'"), emit: versions_numpy, topic: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    """
    describe_counts.py --counts ${counts} --tables ${tables} --threads ${task.cpus} ${task.ext.args ?: ''} --output ${meta.id}
    """

    stub:
    """
    touch ${meta.id}.count_distribution.parquet ${meta.id}.count_distribution.json
    """
}
