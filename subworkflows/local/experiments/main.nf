//
// The experiments: further embeddings for the ordinary grid, and analyses of the prepared data sets
//

include { ABLATE_INTEGRITY } from '../../../modules/local/experiment/ablate_integrity/main'
include { COMPARE_CONTEXTS } from '../../../modules/local/experiment/compare_contexts/main'
include { DESCRIBE_COUNTS } from '../../../modules/local/experiment/describe_counts/main'
include { HOLD_OUT } from '../../../modules/local/experiment/hold_out/main'
include { PREPARE as PREPARE_HELD_OUT } from '../../../modules/local/prepare/main'
include { READ_GENE_TABLE } from '../../../modules/local/experiment/read_gene_table/main'
include { RECALL_GENES } from '../../../modules/local/experiment/recall_genes/main'
include { SCORE_FEWER_CELLS } from '../../../modules/local/experiment/score_fewer_cells/main'
include { codeDigest } from '../utils_code/main'
include { assetTable ; checkpointFolder ; modelSpecs ; modelTable } from '../utils_models/main'
include { embedMeta ; readObject } from '../utils_plumbline/main'
include { allExperiments } from '../utils_request/main'
include { words } from '../utils_schema/main'

// --experiments as a list
def experimentNames(opts) {
    return opts.experiments == 'all' ? allExperiments() : words(opts.experiments)
}

// what the experiments ask for, as [ meta, weights, uses ] (uses: experiment, the variant it is compared with, role)
def experimentRequests(names, ids, models, opts) {
    def fitted = models.findAll { spec -> spec.fit_on == 'train' }
    if ('transfer' in names && ids.size() < 2) {
        log.warn('The experiment transfer needs two data sets; the sheet has one, so there is nothing to transfer.')
    }
    def asked = []
    if ('count_distribution' in names) {
        asked += [ids, variantsOf('count_distribution', models, opts)].combinations().collect { id, spec -> request('count_distribution', id, spec, spec.fit_on, '', opts) }
    }
    if ('minimal_data' in names) {
        asked += [
            ids,
            fitted,
            words(opts.shares),
            (1..opts.share_draws).toList(),
        ].combinations().collect { id, spec, share, draw ->
            request('minimal_data', id, spec + [compared_with: spec.variant], "train@${share}#${draw}", '', opts)
        }
    }
    if ('transfer' in names) {
        asked += [ids, ids, fitted]
            .combinations()
            .findAll { to, from, _spec -> to != from }
            .collect { to, from, spec ->
                request('transfer', to, spec + [compared_with: spec.variant], from, from, opts)
            }
    }
    if ('robustness' in names) {
        def embedded = models.findAll { spec -> spec.role in ['baseline', 'trained', 'foundation'] }
        asked += [ids, embedded, words(opts.damages)]
            .combinations()
            .collect { id, spec, damage ->
                request('robustness', id, spec + [compared_with: spec.variant], "${spec.fit_on}+${damage}", '', opts)
            }
    }
    if ('objectives' in names) {
        def zero_shot = models.findAll { spec -> spec.fit_on in ['train', 'none'] && spec.role != 'predictor' && !spec.only }
        def labelled = variantsOf('objectives', models, opts)
        // each beside the model it is compared with
        def references = modelSpecs((labelled.collect { spec -> spec.compared_with } - zero_shot.collect { spec -> spec.variant }).unique(), opts)
        def all = (labelled + zero_shot + references).unique { spec -> spec.variant }
        asked += [ids, all]
            .combinations()
            .collect { id, spec ->
                def fits = spec.fit_on == 'train'
                request('objectives', "${id}.heldout".toString(), spec, fits ? "${id}:train" : spec.fit_on, fits ? id : '', opts)
            }
    }
    return asked
}

// variants that an experiment adds (assets/experiments.csv), the dear ones if --models names them; those whose checkpoint is
// not at hand are left out
def variantsOf(experiment, models, opts) {
    def named = models.collect { spec -> spec.variant }
    def rows = assetTable("${projectDir}/assets/experiments.csv").findAll { row -> row.experiment == experiment && (row.added == 'always' || row.variant in named) }
    def table = modelTable()
    def usable = rows.findAll { row -> table[row.variant].role != 'foundation' || (opts.weights && checkpointFolder(table[row.variant], opts).exists()) }
    def compared = usable.collectEntries { row -> [row.variant, row.compared_with] }
    return modelSpecs(usable.collect { row -> row.variant }, opts).collect { spec -> spec + [compared_with: compared[spec.variant]] }
}

// experiments fit with the first seed alone: their held-out part is that seed's
def request(experiment, dataset, spec, fit_on, source, opts) {
    def seeds = words(opts.seeds)
    def fit = fit_on == spec.fit_on ? '' : ".${fit_on.replaceAll('[^A-Za-z0-9._-]', '_')}"
    def name = "${dataset}.${spec.variant}${fit}${spec.seeded ? ".${seeds[0]}" : ''}"
    def scored = fit_on in ['none', 'all'] || dataset.endsWith('.heldout') ? seeds.join(',') : seeds[0]
    def meta = embedMeta(name, dataset, spec, opts) + [fit_on: fit_on.toString(), source: source, seed: seeds[0], seeds: scored.toString()]
    return [meta, spec.weights, [[experiment: experiment, compared_with: spec.compared_with ?: '', role: spec.role]]]
}

// an embedding that several ask for is made once
def joinedRequests(requests) {
    return requests.groupBy { meta, _weights, _uses -> meta.id }.values().collect { same -> [same[0][0], same[0][1], same.collectMany { _meta, _weights, uses -> uses }] }
}

// the checkpoints of the main run's models, once each, for their gene tables: [ [model: 'scgpt', variant: 'scgpt', env: 'scgpt', ...], weights ]
def checkpoints(requests, code) {
    return requests
        .findAll { meta, weights, uses -> weights && uses.any { use -> !use.experiment && use.role == 'foundation' } && !meta.settings.any { setting -> setting.startsWith('head=') } }
        .unique(false) { meta, _weights, _uses -> meta.variant }
        .collect { meta, weights, _uses -> [meta.subMap(['model', 'variant', 'env', 'settings']) + [code: code], weights] }
}

workflow EXPERIMENTS {
    take:
    names // list: ['integrity', 'transfer']
    requests // list of [ meta, weights or [], uses ]
    ch_prepared // [ 'kang', counts.h5ad, tables ]
    opts // typed parameters
    catalogue // assets/catalogue.csv

    main:
    def seed = words(opts.seeds)[0]
    def code = ['hold_out_perturbations.py', 'prepare_dataset.py', 'describe_counts.py', 'ablate_integrity.py', 'recall_genes.py'].collectEntries { script -> [script, codeDigest([script])] }
    HOLD_OUT(ch_prepared.filter { 'objectives' in names }.map { id, counts, tables -> [[id: "${id}.heldout".toString(), seed: seed, code: code['hold_out_perturbations.py']], counts, tables] })
    PREPARE_HELD_OUT(
        HOLD_OUT.out.part.map { meta, part, row -> [[id: meta.id, row: new groovy.json.JsonSlurper().parse(row), code: code['prepare_dataset.py']], part, []] },
        catalogue,
    )
    DESCRIBE_COUNTS(ch_prepared.filter { 'count_distribution' in names }.map { id, counts, tables -> [[id: id, code: code['describe_counts.py']], counts, tables] })
    ABLATE_INTEGRITY(ch_prepared.filter { 'integrity' in names }.map { id, counts, tables -> [[id: id, seed: seed, code: code['ablate_integrity.py']], counts, tables] })
    READ_GENE_TABLE(channel.fromList('gene_recall' in names ? checkpoints(requests, codeDigest(['read_gene_table.py', 'plumbline/models/gene_tables.py'], ['models.csv'])) : []))
    ch_gene_tables = READ_GENE_TABLE.out.table.toSortedList { a, b -> a.name <=> b.name }.map { tables -> [tables] }
    RECALL_GENES(
        ch_prepared.filter { 'gene_recall' in names }.map { id, counts, tables -> [[id: id, seed: seed, n_boot: opts.n_boot, code: code['recall_genes.py']], counts, tables] }.combine(ch_gene_tables)
    )

    emit:
    prepared = PREPARE_HELD_OUT.out.prepared.map { meta, counts, tables -> [meta.id, counts, tables] }
    files = DESCRIBE_COUNTS.out.described.mix(ABLATE_INTEGRITY.out.ablated, HOLD_OUT.out.about, RECALL_GENES.out.recall).flatMap { row -> row.drop(1) }
}

// the experiments on embeddings of the main run
workflow EMBEDDING_EXPERIMENTS {
    take:
    names // list: ['cells_per_perturbation']
    tasks // list: ['recall', 'retrieval']
    ch_embeddings // [ meta, embedding.npz, embedding.json ] of the models that are compared, one seed each
    ch_prepared // [ 'kang', counts.h5ad, tables ]
    ch_plans // [ 'kang', [not_applicable: [:], ...] ]
    opts // typed parameters

    main:
    def code = codeDigest(['score_fewer_cells.py'] + tasks.collect { task -> "plumbline/tasks/${task}.py" })
    def how = [seeds: words(opts.seeds)[0], n_draws: opts.n_draws, n_boot: opts.n_boot, decoder_budget: opts.decoder_budget, exact: opts.exact, code: code]
    ch_fewer = ch_embeddings
        .filter { 'cells_per_perturbation' in names }
        .map { meta, embedding, provenance -> [meta.dataset, meta, embedding, provenance, readObject(provenance)] }
        .filter { _id, _meta, _embedding, _provenance, about -> about.status == 'ok' }
        .combine(ch_prepared, by: 0)
        .combine(ch_plans, by: 0)
        .map { _id, meta, embedding, provenance, about, counts, tables, plan ->
            def own = meta.subMap(['id', 'dataset', 'model', 'variant', 'fit_on', 'n_cells', 'n_genes']) + [n_dimensions: about.n_dimensions]
            [own + how + [tasks: tasks.findAll { task -> !plan.not_applicable[task] }.join(',')], embedding, provenance, tables, counts]
        }
        .filter { meta, _embedding, _provenance, _tables, _counts -> meta.tasks }
    SCORE_FEWER_CELLS(ch_fewer)

    emit:
    files = SCORE_FEWER_CELLS.out.curves.map { _meta, curves -> curves }
}

// the same perturbations in several data sets, compared once all embeddings are there
workflow CROSS_CONTEXT {
    take:
    names // list: ['cross_context']
    ch_embeddings // [ meta, embedding.npz, embedding.json ] of the models that are compared, one seed each
    ch_prepared // [ 'kang', counts.h5ad, tables ]
    opts // typed parameters

    main:
    def meta = [seed: words(opts.seeds)[0], n_boot: opts.n_boot, code: codeDigest(['compare_contexts.py'])]
    ch_tables = ch_prepared.toSortedList { a, b -> a[0] <=> b[0] }.map { rows -> [rows.collect { row -> row[2] }] }
    ch_compared = ch_embeddings
        .filter { 'cross_context' in names }
        .toSortedList { a, b -> a[0].id <=> b[0].id }
        .filter { rows -> rows.collect { row -> row[0].dataset }.unique().size() > 1 }
        .map { rows ->
            def about = rows.collect { row -> [file: "${row[0].id}.npz".toString()] + row[0].subMap(['dataset', 'variant', 'fit_on']) }
            [meta + [about: about], rows.collect { row -> row[1] }, rows.collect { row -> row[2] }]
        }
        .combine(ch_tables)
    COMPARE_CONTEXTS(ch_compared)

    emit:
    files = COMPARE_CONTEXTS.out.contexts.map { _meta, contexts -> contexts }
}
