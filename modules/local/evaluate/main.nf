process EVALUATE {
    tag "${meta.id}"
    label 'env_base'
    label 'process_medium'
    container "${params.container_prefix}base:${workflow.manifest.version}"

    input:
    tuple val(meta), path(embedding), path(provenance), path(tables), path(counts)

    output:
    tuple val(meta), path("${meta.id}.scores.parquet"), path("${meta.id}.items.parquet"), emit: scores
    tuple val("${task.process}"), val('numpy'), eval("python3 -c 'import importlib.metadata as m; print(m.version(\"numpy\"))' 2>/dev/null || echo 'not installed'"), emit: versions, topic: versions

    script:
    // counts is an empty list for the tasks that do not read expression
    """
    evaluate_embedding.py \\
        --embedding ${embedding} --tables ${tables} ${counts ? "--counts ${counts}" : ''} \\
        --task ${meta.task} --seeds ${meta.seeds} --protocols ${meta.protocols} --n-draws ${meta.n_draws} --n-boot ${meta.n_boot} \\
        --dataset '${meta.dataset}' --model ${meta.model} --variant '${meta.variant}' --fit-on '${meta.fit_on}' --code ${meta.code} \\
        --threads ${task.cpus} ${task.ext.args ?: ''} --output ${meta.id}
    """

    stub:
    """
    touch ${meta.id}.scores.parquet ${meta.id}.items.parquet
    """
}
