//
// The experiments: further embeddings for the ordinary grid, and analyses of the prepared data sets
//

include { ABLATE_INTEGRITY } from '../../../modules/local/experiment/ablate_integrity/main'
include { COMPARE_CONTEXTS } from '../../../modules/local/experiment/compare_contexts/main'
include { DESCRIBE_COUNTS } from '../../../modules/local/experiment/describe_counts/main'
include { HOLD_OUT } from '../../../modules/local/experiment/hold_out/main'
include { PREPARE as PREPARE_HELD_OUT } from '../../../modules/local/prepare/main'
include { codeDigest } from '../utils_code/main'
include { checkpointFolder ; embedMeta ; modelSpecs ; modelTable ; readTable ; words } from '../utils_plumbline/main'
include { allExperiments } from '../utils_request/main'

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
    def rows = readTable("${projectDir}/assets/experiments.csv").findAll { row -> row.experiment == experiment && (row.added == 'always' || row.variant in named) }
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

workflow EXPERIMENTS {
    take:
    names // list: ['integrity', 'transfer']
    ch_prepared // [ 'kang', counts.h5ad, tables ]
    seeds // '42,43'
    catalogue // assets/catalogue.csv

    main:
    def seed = words(seeds)[0]
    def code = ['hold_out_perturbations.py', 'prepare_dataset.py', 'describe_counts.py', 'ablate_integrity.py'].collectEntries { script -> [script, codeDigest([script])] }
    HOLD_OUT(ch_prepared.filter { 'objectives' in names }.map { id, counts, tables -> [[id: "${id}.heldout".toString(), seed: seed, code: code['hold_out_perturbations.py']], counts, tables] })
    PREPARE_HELD_OUT(
        HOLD_OUT.out.part.map { meta, part, row -> [[id: meta.id, row: new groovy.json.JsonSlurper().parse(row), code: code['prepare_dataset.py']], part, []] },
        catalogue,
    )
    DESCRIBE_COUNTS(ch_prepared.filter { 'count_distribution' in names }.map { id, counts, tables -> [[id: id, code: code['describe_counts.py']], counts, tables] })
    ABLATE_INTEGRITY(ch_prepared.filter { 'integrity' in names }.map { id, counts, tables -> [[id: id, seed: seed, code: code['ablate_integrity.py']], counts, tables] })

    emit:
    prepared = PREPARE_HELD_OUT.out.prepared.map { meta, counts, tables -> [meta.id, counts, tables] }
    files = DESCRIBE_COUNTS.out.described.mix(ABLATE_INTEGRITY.out.ablated, HOLD_OUT.out.about).flatMap { row -> row.drop(1) }
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
