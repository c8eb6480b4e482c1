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
    tuple val(meta), path('*.scores.parquet', arity: '0..*'), path('*.items.parquet', arity: '0..*'), emit: scores
    tuple val("${task.process}"), val('numpy'), eval("python3 -c 'import importlib.metadata as m; print(m.version(\"numpy\"))' 2>/dev/null || echo 'not installed'"), emit: versions_numpy, topic: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    // counts is an empty list where no task reads expression
    // out of GPU memory is repeated on the CPU
    def device = task.accelerator && task.previousTrace?.exit != 66 ? 'cuda' : 'cpu'
    def options = meta.subMap(['seeds', 'protocols', 'dataset', 'model', 'variant']) + ['n-draws': meta.n_draws, 'n-boot': meta.n_boot, 'decoder-budget': meta.decoder_budget, 'fit-on': meta.fit_on, exact: meta.exact ?: null]
    def parts = [task: meta.tasks.collect { one -> one.task }, code: meta.tasks.collect { one -> one.code }, output: meta.tasks.collect { one -> one.id }]
    def many = meta.tasks.size() > 1
    def limit = many && task.time ? "--task-seconds ${task.time.toSeconds().intdiv(meta.tasks.size())}" : ''
    """
    cat > arguments.json <<'ARGUMENTS'
    ${jsonArguments(options + parts)}
    ARGUMENTS
    evaluate_embedding.py @arguments.json \\
        --embedding ${embedding} --tables ${tables} ${counts ? "--counts ${counts}" : ''} \\
        --device ${device} --threads ${task.cpus} ${limit} ${task.ext.args ?: ''} ${many ? '|| echo "the tasks without a result are scored one by one"' : ''}
    """

    stub:
    """
    touch ${meta.tasks.collect { one -> "${one.id}.scores.parquet ${one.id}.items.parquet" }.join(' ')}
    """
}
