include { jsonArguments } from '../../../subworkflows/local/utils_arguments/main'
include { keepReason } from '../../../subworkflows/local/utils_failures/main'
include { evaluateMemory ; evaluateTime } from '../../../subworkflows/local/utils_resources/main'

process EVALUATE {
    tag "${meta.id}"
    label 'process_low'
    memory { evaluateMemory(meta, counts) * task.attempt }
    time { evaluateTime(meta) * task.attempt }
    errorStrategy { keepReason(task, meta.id) }
    container "${params.container_prefix}base:${workflow.manifest.version}"

    input:
    tuple val(meta), path(embedding), path(provenance), path(tables), path(counts)

    output:
    tuple val(meta), path("${meta.id}.scores.parquet"), path("${meta.id}.items.parquet"), emit: scores
    tuple val("${task.process}"), val('numpy'), eval("python3 -c 'import importlib.metadata as m; print(m.version(\"numpy\"))' 2>/dev/null || echo 'not installed'"), emit: versions_numpy, topic: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    // counts is an empty list for the tasks that do not read expression
    // out of GPU memory is repeated on the CPU
    def device = task.accelerator && task.previousTrace?.exit != 66 ? 'cuda' : 'cpu'
    def options = meta.subMap(['task', 'seeds', 'protocols', 'dataset', 'model', 'variant', 'code']) + ['n-draws': meta.n_draws, 'n-boot': meta.n_boot, 'decoder-budget': meta.decoder_budget, 'fit-on': meta.fit_on, exact: meta.exact ?: null]
    """
    cat > arguments.json <<'ARGUMENTS'
    ${jsonArguments(options)}
    ARGUMENTS
    evaluate_embedding.py @arguments.json \\
        --embedding ${embedding} --tables ${tables} ${counts ? "--counts ${counts}" : ''} \\
        --device ${device} --threads ${task.cpus} ${task.ext.args ?: ''} --output ${meta.id}
    """

    stub:
    """
    touch ${meta.id}.scores.parquet ${meta.id}.items.parquet
    """
}
