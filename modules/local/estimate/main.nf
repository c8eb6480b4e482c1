include { keepReason } from '../../../subworkflows/local/utils_failures/main'

process ESTIMATE {
    label 'process_single'
    errorStrategy { keepReason(task, 'estimate') }
    container "${params.container_prefix}base:${workflow.manifest.version}"

    input:
    val meta
    path plan
    path inputs, stageAs: 'inputs?/*'
    path costs
    path catalogue

    output:
    path 'estimate.txt', emit: text
    path 'estimate.tsv', emit: table
    tuple val("${task.process}"), val('scipy'), eval("python3 -c 'import importlib.metadata as m; print(m.version(\"scipy\"))' 2>/dev/null || echo 'not installed'"), emit: versions_scipy, topic: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    """
    estimate_cost.py --plan ${plan} --costs ${costs} --catalogue ${catalogue} --inputs . --cpus ${meta.cpus} ${task.ext.args ?: ''} \\
        --output estimate.txt --table estimate.tsv
    """

    stub:
    """
    echo 'a stub has no cost' > estimate.txt
    touch estimate.tsv
    """
}
