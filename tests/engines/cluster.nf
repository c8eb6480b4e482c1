#!/usr/bin/env nextflow

//
// Two processes with the pipeline's own settings (cluster.config): one outgrows its memory once, one asks for a GPU
//

process HUNGRY {
    memory { 300.MB * task.attempt }

    output:
    path 'attempt.txt'

    script:
    """
    python3 -c 'import time; taken = bytearray(b"x") * (450 * 2**20); time.sleep(8)'
    echo ${task.attempt} > attempt.txt
    """
}

process GPU {
    label 'process_gpu'
    tag "${number}"

    input:
    val number

    output:
    path 'gpu.txt'

    script:
    """
    echo "gpu \${CUDA_VISIBLE_DEVICES:-none} job \${SLURM_JOB_ID:-none} partition \${SLURM_JOB_PARTITION:-none}" > gpu.txt
    sleep 6
    """
}

process FAULTY {
    script:
    """
    exit 1
    """
}

workflow {
    HUNGRY().view { path -> "HUNGRY succeeded at attempt ${path.text.trim()}" }
    GPU(channel.of(1, 2)).view { path -> path.text.trim() }
    FAULTY()
}
