include { jsonArguments } from '../../../subworkflows/local/utils_arguments/main'

// What follows from the tables of a data set and the request: no other task waits for its files, so that a further seed
// or an edited task repeats this one alone.
process PLAN {
    tag "${meta.id}"
    // its warnings about the splits belong on the console
    debug true
    label 'process_single'
    container "${params.container_prefix}base:${workflow.manifest.version}"

    input:
    tuple val(meta), path(tables)

    output:
    tuple val(meta), path("${meta.id}.plan.json"), emit: plan
    tuple val(meta), path("${meta.id}/tables"), emit: tables
    tuple val("${task.process}"), val('pandas'), eval("python3 -c 'import importlib.metadata as m; print(m.version(\"pandas\"))' 2>/dev/null || echo 'not installed'"), emit: versions_pandas, topic: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    """
    cat > arguments.json <<'ARGUMENTS'
    ${jsonArguments(meta.subMap(['seeds']))}
    ARGUMENTS
    # one folder from one task: two that publish into it would undo each other's files
    mkdir ${meta.id}
    cp -rL ${tables} ${meta.id}/tables
    plan_evaluation.py @arguments.json --tables ${tables} --splits ${meta.id}/tables/splits.parquet ${task.ext.args ?: ''} \\
        --output ${meta.id}.plan.json
    """

    stub:
    """
    mkdir -p ${meta.id}/tables
    touch ${meta.id}/tables/splits.parquet
    echo '{"not_applicable": {}}' > ${meta.id}.plan.json
    """
}
