include { jsonArguments } from '../../../../subworkflows/local/utils_arguments/main'
include { keepReason } from '../../../../subworkflows/local/utils_failures/main'
include { evaluateMemory ; evaluateTime } from '../../../../subworkflows/local/utils_resources/main'

process SCORE_FEWER_CELLS {
    tag "${meta.id}"
    label 'env_base'
    label 'process_sized'
    memory { evaluateMemory(meta, counts) * task.attempt }
    time { 4 * evaluateTime(meta) * task.attempt }
    errorStrategy { keepReason(task, "${meta.id}.fewer_cells") }
    container "${params.container_prefix}base:${workflow.manifest.version}"

    input:
    tuple val(meta), path(embedding), path(provenance), path(tables), path(counts)

    output:
    tuple val(meta), path("${meta.id}.cells_per_perturbation.parquet"), emit: curves
    tuple val("${task.process}"), val('numpy'), eval("python3 -c 'import importlib.metadata as m; print(m.version(\"numpy\"))' 2>/dev/null || echo 'not installed'"), emit: versions, topic: versions

    script:
    // counts is an empty list where no task reads expression
    def options = meta.subMap(['dataset', 'model', 'variant']) + [seed: meta.seeds, tasks: meta.tasks, 'n-draws': meta.n_draws, 'n-boot': meta.n_boot, 'decoder-budget': meta.decoder_budget, 'fit-on': meta.fit_on, exact: meta.exact ?: null]
    """
    cat > arguments.json <<'ARGUMENTS'
    ${jsonArguments(options)}
    ARGUMENTS
    score_fewer_cells.py @arguments.json \\
        --embedding ${embedding} --tables ${tables} ${counts ? "--counts ${counts}" : ''} \\
        --device cpu --threads ${task.cpus} ${task.ext.args ?: ''} --output ${meta.id}
    """

    stub:
    """
    touch ${meta.id}.cells_per_perturbation.parquet
    """
}
