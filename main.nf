#!/usr/bin/env nextflow

//
// plumbline: does this cell embedding beat one PCA on perturbation data?
// PREPARE a data set -> EMBED it with every model -> EVALUATE every embedding on every task -> SUMMARISE -> REPORT
//

include { ABOUT_RUN ; reportConfigs ; reportLogo } from './subworkflows/local/utils_report/main'
include { EMBED } from './subworkflows/local/embed/main'
include { ESTIMATE } from './modules/local/estimate/main'
include { EVALUATE } from './subworkflows/local/evaluate/main'
include { CROSS_CONTEXT ; EMBEDDING_EXPERIMENTS ; EXPERIMENTS ; experimentNames ; experimentRequests ; joinedRequests } from './subworkflows/local/experiments/main'
include { FETCH } from './modules/local/fetch/main'
include { MAP } from './modules/local/map/main'
include { MULTIQC } from './modules/nf-core/multiqc/main'
include { PLAN } from './modules/local/plan/main'
include { PREPARE } from './modules/local/prepare/main'
include { REPORT } from './modules/local/report/main'
include { SUMMARISE } from './modules/local/summarise/main'
include { announce } from './subworkflows/local/utils_completion/main'
include { codeDigest } from './subworkflows/local/utils_code/main'
include { checkKnown ; selectedEmbeddings ; selectedModels } from './subworkflows/local/utils_models/main'
include { embedRequests ; evaluateMetas ; expectedRuns ; factsOf ; isCompared ; planOf ; readObject ; recordFiles ; selectedDatasets ; selectedTasks ; tasksFor } from './subworkflows/local/utils_plumbline/main'
include { checkNames ; checkedParameters } from './subworkflows/local/utils_request/main'
include { paramsHelp ; words } from './subworkflows/local/utils_schema/main'

workflow PLUMBLINE {
    take:
    datasets // list of [ meta, file or [], cell table or [] ]: [ [id: 'kang', row: [...], code: 'ab12..'], kang.h5ad, [] ]
    requests // list of [ meta, weights or [], uses ]: [ [id: 'kang.pca.42', dataset: 'kang', model: 'pca', ...], [], [[role: 'baseline', ...]] ]
    experiments // list: ['transfer']
    tasks // [main: ['recall', 'separability'], experiments: ['recall'], flags: [recall: [needs_counts: false, ...], ...]]
    opts // typed parameters

    main:
    def assets = file("${projectDir}/assets")
    ch_datasets = channel
        .fromList(datasets)
        .branch { _meta, path, _cell_table ->
            named: !path
            given: true
        }
    // a download knows only its name and its own code, so that nothing else repeats it
    def fetch_code = codeDigest(['fetch_dataset.py'])
    FETCH(ch_datasets.named.map { meta, _none, _cell_table -> [id: meta.id, code: fetch_code] }, assets.resolve('catalogue.csv'))
    ch_fetched = ch_datasets.named
        .map { meta, _none, _cell_table -> [meta.id, meta] }
        .join(FETCH.out.file.map { meta, path -> [meta.id, path] }, failOnMismatch: true, failOnDuplicate: true)
        .map { _id, meta, path -> [meta, path, []] }
    PREPARE(ch_datasets.given.mix(ch_fetched), assets.resolve('catalogue.csv'))

    // [ 'kang', counts.h5ad, tables ]
    ch_given_data = PREPARE.out.prepared.map { meta, counts, tables -> [meta.id, counts, tables] }
    EXPERIMENTS(experiments, requests, ch_given_data, opts, assets.resolve('catalogue.csv'))
    ch_prepared = ch_given_data.mix(EXPERIMENTS.out.prepared)

    def records = recordFiles(tasks)
    def plan_code = codeDigest(['plan_evaluation.py'] + records)
    PLAN(ch_prepared.map { id, _counts, tables -> [[id: id, seeds: words(opts.seeds).join(','), code: plan_code], tables] })
    // [ 'kang', [not_applicable: [recall: 'known relationships are ...'], ...] ]
    ch_plans = PLAN.out.plan.map { meta, plan -> [meta.id, readObject(plan)] }

    // an embedding of one data set may be fitted on another: '' stands for none
    ch_sources = ch_prepared.map { id, counts, tables -> [id, [counts, tables]] }.mix(channel.of(['', []]))
    ch_requests = channel
        .fromList(requests)
        .map { meta, weights, _uses -> [meta.dataset, meta - meta.subMap(['seeds']), weights] }
        .combine(ch_prepared, by: 0)
        .map { _id, meta, weights, counts, tables -> [meta.source, meta + factsOf(tables).subMap(['n_cells', 'n_genes']), counts, tables, weights] }
        .combine(ch_sources, by: 0)
        .map { _id, meta, counts, tables, weights, source -> [meta, counts, tables, weights, source] }
    EMBED(ch_requests)

    def uses = requests.collectEntries { meta, _weights, wanted -> [meta.id, wanted] }
    def seeds = requests.collectEntries { meta, _weights, _uses -> [meta.id, meta.seeds] }
    // one digest per task, so that editing a task repeats that task alone
    def digests = tasks.main.collectEntries { task -> [task, codeDigest(['evaluate_embedding.py', "plumbline/tasks/${task}.py"])] }
    // where the data set or the model already says that there is nothing to score, SUMMARISE writes the rows
    ch_evaluations = EMBED.out.embeddings
        .map { meta, embedding, provenance -> [meta.dataset, meta + [seeds: seeds[meta.id]], embedding, provenance, readObject(provenance)] }
        .filter { _id, _meta, _embedding, _provenance, about -> about.status == 'ok' }
        .combine(ch_prepared, by: 0)
        .combine(ch_plans, by: 0)
        .flatMap { _id, meta, embedding, provenance, about, counts, tables, plan ->
            def wanted = tasksFor(uses[meta.id], tasks).findAll { task -> !plan.not_applicable[task] }
            evaluateMetas(meta + [n_dimensions: about.n_dimensions], wanted, digests, uses[meta.id], opts, tasks.flags).collect { evaluation ->
                [evaluation, embedding, provenance, tables, counts]
            }
        }
    // one machine's GPUs are --max_gpus in all: embeddings have them first, then evaluations
    def shares_gpus = opts.max_gpus && 'gpu' in words(workflow.profile)
    EVALUATE(ch_evaluations, shares_gpus ? EMBED.out.gpus_free : channel.value('free'))
    ch_compared = EMBED.out.embeddings.filter { meta, _embedding, _provenance -> isCompared(meta, uses[meta.id], opts) }
    EMBEDDING_EXPERIMENTS(experiments, tasks.experiments, ch_compared, ch_prepared, ch_plans, opts)
    CROSS_CONTEXT(experiments, ch_compared, ch_given_data, opts)

    // known when all tasks have ended
    ch_expected = EVALUATE.out.scores
        .toList()
        .map { _scores -> 'ended' }
        .combine(ch_plans.toList().map { plans -> [plans.collectEntries()] })
        .map { _ended, plans -> groovy.json.JsonOutput.toJson(expectedRuns(requests, tasks, plans, digests, opts)) }
        .collectFile(name: 'expected.json', newLine: true)

    SUMMARISE(
        [baseline: opts.baseline, experiments: experiments, n_boot: opts.n_boot, n_draws: opts.n_draws, decoder_budget: opts.decoder_budget, exact: opts.exact, seed: words(opts.seeds)[0], code: codeDigest(['summarise_scores.py'] + records)],
        EVALUATE.out.scores.toSortedList { a, b -> a[0].id <=> b[0].id }.map { rows -> rows.collect { row -> row[1] } },
        EVALUATE.out.scores.toSortedList { a, b -> a[0].id <=> b[0].id }.map { rows -> rows.collect { row -> row[2] } },
        EMBED.out.embeddings.toSortedList { a, b -> a[0].id <=> b[0].id }.map { rows -> rows.collect { row -> row[2] } },
        ch_prepared.toSortedList { a, b -> a[0] <=> b[0] }.map { rows -> rows.collect { row -> row[2] } },
        PLAN.out.plan.toSortedList { a, b -> a[0].id <=> b[0].id }.map { rows -> rows.collect { row -> row[1] } },
        ch_expected,
        assets.resolve('models.csv'),
        assets.resolve('published_scores.csv'),
    )

    // [ [id: 'kang', code: 'ab12..'], [ pca.npz, scvi.npz ], [ pca.json, scvi.json ], tables ]
    def map_code = codeDigest(['map_cells.py'])
    ch_mapped = ch_compared
        .filter { !opts.skip_maps }
        .toSortedList { a, b -> a[0].id <=> b[0].id }
        .flatMap { rows -> rows.groupBy { row -> row[0].dataset }.collect { id, part -> [id, part.collect { row -> row[1] }, part.collect { row -> row[2] }] } }
        .combine(ch_prepared, by: 0)
        .map { id, embeddings, provenance, _counts, tables -> [[id: id, code: map_code], embeddings, provenance, tables] }
    MAP(ch_mapped)
    REPORT(
        [code: codeDigest(['report_scores.py'] + records)],
        SUMMARISE.out.summary,
        EXPERIMENTS.out.files.mix(EMBEDDING_EXPERIMENTS.out.files, CROSS_CONTEXT.out.files).toSortedList { a, b -> a.name <=> b.name }.ifEmpty([]),
        MAP.out.tables.flatten().toSortedList { a, b -> a.name <=> b.name }.ifEmpty([]),
        assets.resolve('catalogue.csv'),
    )

    ABOUT_RUN(opts)
    MULTIQC(
        REPORT.out.sections.mix(ABOUT_RUN.out.sections).flatten().toSortedList { a, b -> a.name <=> b.name }.map { sections -> [[id: 'plumbline'], sections] }.combine(REPORT.out.order).combine(ABOUT_RUN.out.title).map { meta, sections, order, title -> [meta, sections, reportConfigs(opts, order, title), reportLogo(opts), [], []] }
    )

    emit:
    report = MULTIQC.out.report
    summary = SUMMARISE.out.summary
    text = REPORT.out.text
}

workflow {
    if (params.help) {
        log.info(paramsHelp("${projectDir}/nextflow_schema.json", 'nextflow run . -profile docker --input samplesheet.csv --outdir results'))
        exit(0)
    }
    def opts = checkedParameters(params, args)
    // [report: path, summary: path], as soon as they are there
    def made = [:]
    workflow.onComplete { announce(opts, made) }
    def prepare_code = codeDigest(['prepare_dataset.py'])
    def datasets = selectedDatasets(opts).collect { meta, path, cell_table -> [meta + [code: prepare_code], path, cell_table] }
    def ids = datasets.collect { dataset -> dataset[0].id }
    def models = selectedModels(opts) + selectedEmbeddings(opts, ids)
    checkKnown('baseline (it must be among --models)', [opts.baseline], models.collect { spec -> spec.variant })
    def tasks = selectedTasks(opts)
    def experiments = experimentNames(opts)
    def wanted = embedRequests(ids, models, opts) + experimentRequests(experiments, ids, models, opts)
    checkNames(ids, models, wanted, experiments)
    def requests = joinedRequests(wanted)
    def plan = groovy.json.JsonOutput.toJson(planOf(datasets, requests, tasks, experiments, opts))
    ESTIMATE(
        [cpus: Runtime.runtime.availableProcessors(), code: codeDigest(['estimate_cost.py'] + recordFiles(tasks))],
        channel.of(plan).collectFile(name: 'plan.json'),
        datasets.collect { dataset -> dataset[1] }.findAll { path -> path },
        file(opts.costs, checkIfExists: true),
        file("${projectDir}/assets/catalogue.csv"),
    )
    ESTIMATE.out.text.view { text -> text.text }

    if (!opts.estimate_only) {
        PLUMBLINE(datasets, requests, experiments, tasks, opts)
        PLUMBLINE.out.text.view { text -> text.text }
        PLUMBLINE.out.text.subscribe { text -> made.summary = text }
        PLUMBLINE.out.report.subscribe { _meta, report -> made.report = report }
    }
}
