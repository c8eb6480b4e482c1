include { jsonArguments } from '../../../../subworkflows/local/utils_arguments/main'
include { keepReason } from '../../../../subworkflows/local/utils_failures/main'

process COMPARE_CONTEXTS {
    label 'env_base'
    label 'process_single'
    errorStrategy { keepReason(task, 'cross_context') }
    container "${params.container_prefix}base:${workflow.manifest.version}"

    input:
    tuple val(meta), path(embeddings, stageAs: 'embeddings/*'), path(provenance, stageAs: 'embeddings/*'), path(tables, stageAs: 'tables/*/*')

    output:
    tuple val(meta), path('cross_context.parquet'), emit: contexts
    tuple val("${task.process}"), val('scipy'), eval("python3 -c 'import importlib.metadata as m; print(m.version(\"scipy\"))' 2>/dev/null || echo 'not installed'"), emit: versions, topic: versions

    script:
    // what users name travels in files
    """
    cat > about.json <<'ABOUT'
    ${groovy.json.JsonOutput.toJson(meta.about)}
    ABOUT
    cat > arguments.json <<'ARGUMENTS'
    ${jsonArguments([seed: meta.seed, 'n-boot': meta.n_boot])}
    ARGUMENTS
    compare_contexts.py @arguments.json --embeddings embeddings --tables tables --about about.json ${task.ext.args ?: ''} \\
        --output cross_context.parquet
    """

    stub:
    """
    touch cross_context.parquet
    """
}
