include { summaryMemory ; summaryTime } from '../../../subworkflows/local/utils_resources/main'

process REPORT {
    label 'process_low'
    memory { summaryMemory(summary) * task.attempt }
    time { summaryTime(summary) * task.attempt }
    container "${params.container_prefix}base:${workflow.manifest.version}"

    input:
    val meta
    path summary, stageAs: 'summary/*'
    path experiments, stageAs: 'experiments/*'
    path maps, stageAs: 'maps/*'
    path catalogue

    output:
    path 'report/*_mqc.*', emit: sections
    path 'report/summary.md', emit: text
    path 'report/multiqc_order.json', emit: order
    tuple val("${task.process}"), val('matplotlib'), eval("python3 -c 'import importlib.metadata as m; print(m.version(\"matplotlib\"))' 2>/dev/null || echo 'not installed'"), emit: versions_matplotlib, topic: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    """
    report_scores.py \\
        --summary summary ${experiments ? '--experiments experiments' : ''} ${maps ? '--maps maps' : ''} --catalogue ${catalogue} \\
        --outdir report ${task.ext.args ?: ''}
    """

    stub:
    """
    mkdir report
    touch report/verdicts_mqc.json report/summary.md
    echo '{}' > report/multiqc_order.json
    """
}
