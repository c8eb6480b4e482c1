include { jsonArguments } from '../../../../subworkflows/local/utils_arguments/main'
include { keepReason } from '../../../../subworkflows/local/utils_failures/main'

process HOLD_OUT {
    tag "${meta.id}"
    label 'process_single'
    errorStrategy { keepReason(task, meta.id) }
    container "${params.container_prefix}base:${workflow.manifest.version}"

    input:
    tuple val(meta), path(counts), path(tables)

    output:
    tuple val(meta), path("${meta.id}.h5ad"), path("${meta.id}.row.json"), optional: true, emit: part
    tuple val(meta), path("${meta.id}.objectives.json"), emit: about
    tuple val("${task.process}"), val('h5py'), eval("python3 -c 'import importlib.metadata as m; print(m.version(\"h5py\"))' 2>/dev/null || echo 'not installed'"), emit: versions_h5py, topic: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    """
    cat > arguments.json <<'ARGUMENTS'
    ${jsonArguments(meta.subMap(['seed']) + [name: meta.id])}
    ARGUMENTS
    hold_out_perturbations.py @arguments.json \\
        --counts ${counts} --tables ${tables} ${task.ext.args ?: ''} --output ${meta.id}
    """

    stub:
    """
    touch ${meta.id}.h5ad
    echo '{"name": "${meta.id}"}' > ${meta.id}.row.json
    echo '{"status": "ok", "stub": true}' > ${meta.id}.objectives.json
    """
}
