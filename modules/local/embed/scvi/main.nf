process EMBED_SCVI {
    tag "${meta.id}"
    label 'env_scvi'
    label 'process_gpu'
    container "${params.container_prefix}scvi:${workflow.manifest.version}"

    input:
    tuple val(meta), path(counts), path(tables), path(weights, stageAs: 'weights/*'), path(source, stageAs: 'source/*')

    output:
    tuple val(meta), path("${meta.id}.npz"), path("${meta.id}.json"), emit: embedding
    tuple val("${task.process}"), val('scvi-tools'), eval("python3 -c 'import importlib.metadata as m; print(m.version(\"scvi-tools\"))' 2>/dev/null || echo 'not installed'"), emit: versions, topic: versions

    script:
    def settings = meta.settings.collect { setting -> "--set '${setting}'" }.join(' ')
    // out of GPU memory is retried with half the batch (conf/base.config)
    def batch = meta.batch_size ? "--batch-size ${Math.max(1, meta.batch_size.intdiv(2 ** (task.attempt - 1)))}" : ''
    """
    embed_scvi.py \\
        --counts ${counts} --tables ${tables} ${weights ? "--weights ${weights}" : ''} ${source ? '--source source' : ''} \\
        --variant ${meta.variant} --fit-on ${meta.fit_on} --seed ${meta.seed} ${settings} ${batch} \\
        --device ${task.accelerator ? 'cuda' : 'cpu'} --threads ${task.cpus} ${task.ext.args ?: ''} \\
        --output ${meta.id}.npz
    """

    stub:
    """
    touch ${meta.id}.npz
    echo '{"status": "ok", "model": "scvi", "stub": true}' > ${meta.id}.json
    """
}
