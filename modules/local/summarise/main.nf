include { jsonArguments } from '../../../subworkflows/local/utils_arguments/main'
include { summaryMemory ; summaryTime } from '../../../subworkflows/local/utils_resources/main'

process SUMMARISE {
    label 'process_low'
    memory { summaryMemory(items) * task.attempt }
    time { summaryTime(items) * task.attempt }
    container "${params.container_prefix}base:${workflow.manifest.version}"

    input:
    val meta
    path scores, stageAs: 'scores/*'
    path items, stageAs: 'items/*'
    path provenance, stageAs: 'provenance/*'
    path tables, stageAs: 'tables/*/*'
    path plans, stageAs: 'plans/*'
    path expected
    path models
    path published

    output:
    path 'summary/*', emit: summary
    tuple val("${task.process}"), val('pandas'), eval("python3 -c 'import importlib.metadata as m; print(m.version(\"pandas\"))' 2>/dev/null || echo 'not installed'"), emit: versions_pandas, topic: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    def options = meta.subMap(['baseline', 'seed']) + ['n-boot': meta.n_boot, 'n-draws': meta.n_draws, 'decoder-budget': meta.decoder_budget, exact: meta.exact ?: null, experiments: meta.experiments.join(',')]
    """
    cat > arguments.json <<'ARGUMENTS'
    ${jsonArguments(options)}
    ARGUMENTS
    summarise_scores.py @arguments.json \\
        --scores scores --items items --provenance provenance --data-reports tables --plans plans --expected ${expected} \\
        --models ${models} --published ${published} \\
        --outdir summary ${task.ext.args ?: ''}
    """

    stub:
    """
    mkdir summary
    touch summary/scores.parquet summary/scores.tsv
    """
}
