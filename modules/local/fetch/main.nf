process FETCH {
    tag "${meta.id}"
    label 'process_single'
    label 'needs_network'
    container "${params.container_prefix}base:${workflow.manifest.version}"

    input:
    val meta
    path catalogue

    output:
    tuple val(meta), path("${meta.id}.h5ad"), emit: file
    tuple val("${task.process}"), val('python'), eval("python3 --version | sed 's/Python //'"), emit: versions_python, topic: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    """
    fetch_dataset.py ${meta.id} --catalogue ${catalogue} --output ${meta.id}.h5ad ${task.ext.args ?: ''}
    """

    stub:
    """
    touch ${meta.id}.h5ad
    """
}
