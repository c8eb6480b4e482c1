include { jsonArguments } from '../../../subworkflows/local/utils_arguments/main'
include { keepReason } from '../../../subworkflows/local/utils_failures/main'
include { layerNames } from '../../../subworkflows/local/utils_models/main'
include { embedMemory ; embedTime } from '../../../subworkflows/local/utils_resources/main'

// One process for all models: the script, the container and the settings ride in meta. It is aliased by where it runs (EMBED_CPU,
// EMBED_GPU), so that a site can give each its resources.
process EMBED_MODEL {
    tag "${meta.id}"
    label 'process_low'
    memory { embedMemory(meta, counts) * task.attempt }
    time { embedTime(meta) * task.attempt }
    beforeScript { task.ext.env_dir ? "export PATH='${task.ext.env_dir}/${meta.env}/bin':\$PATH" : '' }
    errorStrategy { keepReason(task, meta.id) }
    // `nextflow inspect` knows no task: it sees the image that most models use
    container "${params.container_prefix}${meta?.env ?: 'base'}:${workflow.manifest.version}"

    input:
    tuple val(meta), path(counts), path(tables), path(weights, stageAs: 'weights/*'), path(source, stageAs: 'source/*')

    output:
    tuple val(meta), path("${meta.id}.npz"), path("${meta.id}.json"), emit: embedding
    tuple val(meta), path("${meta.id}.layer*.{npz,json}"), emit: layers, optional: true
    // hidden states, if settings ask for them
    tuple val("${task.process}"), val("${meta.env}"), eval("python3 -c 'import importlib.metadata as m; print(\", \".join(d.name + \" \" + d.version for d in sorted(m.distributions(), key=str) if d.name in (\"numpy\", \"torch\", \"scvi-tools\")))'"), emit: versions_packages, topic: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    // out of GPU memory is retried with half the batch (conf/base.config)
    def batch = meta.batch_size ? Math.max(1, meta.batch_size.intdiv(2 ** (task.attempt - 1))) : null
    def options = meta.subMap(['variant', 'seed']) + ['fit-on': meta.fit_on, set: meta.settings, 'batch-size': batch]
    """
    cat > arguments.json <<'ARGUMENTS'
    ${jsonArguments(options)}
    ARGUMENTS
    embed_${meta.model}.py @arguments.json \\
        --counts ${counts} --tables ${tables} ${weights ? '--weights weights/*' : ''} ${source ? '--source source' : ''} \\
        --device ${task.accelerator ? 'cuda' : 'cpu'} --threads ${task.cpus} ${task.ext.args ?: ''} --output ${meta.id}.npz
    """

    stub:
    def names = [meta.id] + layerNames(meta.settings).collect { layer -> "${meta.id}.${layer}" }
    """
    for name in ${names.join(' ')}; do
        touch \$name.npz
        echo '{"status": "ok", "model": "${meta.model}", "stub": true}' > \$name.json
    done
    """
}
