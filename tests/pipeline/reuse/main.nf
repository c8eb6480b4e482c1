#!/usr/bin/env nextflow

//
// A pipeline of someone else that scores embeddings with EVALUATE alone. What it needs of plumbline: the module, the
// folder bin (here a link; copy it into yours), two settings (nextflow.config), and an image or environment.
//

include { EVALUATE } from '../../../modules/local/evaluate/main'

workflow {
    def meta = [
        id: 'mine',
        dataset: 'mine',
        model: 'external',
        variant: 'my_model',
        fit_on: 'none',
        seeds: '42',
        protocols: 'corrected',
        n_draws: 50,
        n_boot: 50,
        tasks: [[id: 'mine.consistency', task: 'consistency', code: 'any']],
    ]
    EVALUATE(channel.of([meta, file(params.embedding), file(params.provenance), file(params.tables), []]))
    EVALUATE.out.scores.view { scored, scores, _items -> "${scored.id}: ${scores*.name}" }
}
