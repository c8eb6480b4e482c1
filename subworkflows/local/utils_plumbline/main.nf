//
// The request as lists: data sets, tasks, what is embedded and what is scored. The parameters have been checked (utils_request).
//

include { folderDigest } from '../utils_code/main'
include { failures } from '../utils_failures/main'
include { assetTable ; modelTable ; withLayers } from '../utils_models/main'
include { nearest ; words } from '../utils_schema/main'
include { samplesheetToList } from '../utils_sheet/main'

// the tasks are the files of bin/plumbline/tasks
def taskNames() {
    return files("${projectDir}/bin/plumbline/tasks/*.py").collect { task -> task.baseName }.findAll { name -> name != '__init__' }.sort()
}

// what Nextflow must know of each task, read from its record: [ reconstruction: [needs_counts: true, uses_split: true, ..], .. ]
def taskFlags() {
    return taskNames().collectEntries { name ->
        def lines = file("${projectDir}/bin/plumbline/tasks/${name}.py").readLines().collect { line -> line.trim() }
        [name, ['needs_counts', 'scores_predictors', 'uses_split', 'uses_device'].collectEntries { flag -> [flag, "${flag}=True,".toString() in lines] }]
    }
}

// what is scored: every task that was asked for, and those of them that experiments are scored on too
def selectedTasks(opts) {
    def known = taskNames()
    def asked = opts.tasks == 'all' ? known : words(opts.tasks)
    def tried = opts.experiment_tasks == 'all' ? known : words(opts.experiment_tasks)
    return [main: asked, experiments: asked.intersect(tried), flags: taskFlags()]
}

// the files of all tasks, for digests of what reads their records
def recordFiles(tasks) {
    return tasks.flags.keySet().collect { task -> "plumbline/tasks/${task}.py" }
}

// rows of the sheet of data sets: [ [id, row], file or [], cell table or [] ]
def selectedDatasets(opts) {
    def listed = assetTable("${projectDir}/assets/catalogue.csv").collectEntries { row -> [row.name, row] }
    def catalogue = listed.keySet()
    return samplesheetToList(opts.input, "${projectDir}/assets/schema_input.json").collect { fields ->
        def row = fields[0].findAll { _column, value -> value != null }
        if (!row.path && !(row.name in catalogue)) {
            error("The data set ${row.name} has no path and is not in the catalogue.${nearest(row.name, catalogue)} Give a path, or one of: ${catalogue.join(', ')}.")
        }
        if (!row.perturbation_column && !(row.name in catalogue)) {
            error("The sheet must give the perturbation_column of the data set ${row.name}, which is not in the catalogue: the cell annotation that names the perturbation.")
        }
        def note = catalogueNote(row, listed[row.name])
        if (note) {
            log.warn(note)
        }
        def files = ['path', 'cell_table'].collect { column -> row[column] ? file(row[column], glob: false) : [] }
        def order = opts.split_order == 'file' ? [:] : [split_order: opts.split_order]
        [[id: row.name.toString(), row: order + (row - row.subMap(['path', 'cell_table'])), folders: files.collect { path -> folderDigest(path, [file(opts.outdir), workflow.workDir]) }]] + files
    }
}

// a file of one's own under a name of the catalogue: by design where that data set was downloaded by hand, else by chance
def catalogueNote(row, listed) {
    def known = ['title', 'organism', 'perturbation_type', 'perturbation_column', 'control_label', 'batch_column', 'gene_id_column', 'x_kind', 'min_counts', 'published_as', 'public_since']
    def filled = row.path && listed ? known.findAll { column -> listed[column] && row[column] == null } : []
    return filled ? "${row.name}: what the sheet leaves open is that of the catalogue's data set of this name: ${filled.collect { column -> "${column} ${listed[column]}" }.join(', ')}. If these are other cells, choose another name.".toString() : ''
}

// the main run: every data set x model x seed as [ meta, weights, uses ]
def embedRequests(dataset_ids, models, opts) {
    def seeds = words(opts.seeds)
    return [dataset_ids, models]
        .combinations()
        .findAll { id, spec -> !spec.only || spec.only == id }
        .collectMany { id, spec ->
            (spec.seeded ? seeds : [seeds[0]]).collectMany { seed ->
                def name = spec.seeded ? "${id}.${spec.variant}.${seed}" : "${id}.${spec.variant}"
                def meta = embedMeta(name, id, spec, opts) + [seed: seed, seeds: (spec.seeded ? seed : seeds.join(',')).toString()]
                withLayers(meta, spec.weights, [[experiment: '', compared_with: '', role: spec.role]])
            }
        }
}

// meta of one embedding task; source: another data set to fit on
def embedMeta(name, dataset, spec, opts) {
    return [
        id: name.toString(),
        dataset: dataset,
        model: spec.model,
        variant: spec.variant,
        fit_on: spec.fit_on,
        source: '',
        settings: spec.settings,
        env: spec.env,
        device: spec.device,
        batch_size: opts.batch_size,
        code: spec.code,
    ]
}

// what PREPARE found out about a data set (dataset.json); a stub has nothing
def factsOf(tables) {
    return readObject(tables.resolve('dataset.json'))
}

// a JSON file; [:] where it is missing or empty
def readObject(path) {
    return path.exists() && path.size() ? new groovy.json.JsonSlurper().parse(path) : [:]
}

// the seeds of each evaluation of one embedding and task. Up to MANY_CELLS cells all seeds are one, as starting it takes
// longer than what it computes; beyond, each is its own, so that a further seed repeats nothing.
def seedGroups(seeds, n_cells) {
    def many_cells = 50_000
    return (n_cells ?: 0) > many_cells ? words(seeds) : [seeds]
}

// meta of every EVALUATE of one embedding. Small embeddings have one for all their tasks, as loading the packages takes longer
// than what a task computes; others have one for each task (and seed).
def evaluateMetas(meta, wanted, digests, uses, opts, flags) {
    def about = meta.subMap(['dataset', 'model', 'variant', 'fit_on', 'n_cells', 'n_genes', 'n_dimensions']) + opts.subMap(['n_draws', 'n_boot', 'decoder_budget', 'exact'])
    def groups = seedGroups(meta.seeds, meta.n_cells)
    def apart = [wanted, groups]
        .combinations()
        .collect { task, seeds ->
            // without a split, `paper` has nothing that depends on the seed: it is scored with the first
            def protocols = protocolsFor(uses, opts).findAll { protocol -> protocol != 'paper' || flags[task].uses_split || seeds == groups[0] }
            def one = [id: evaluationId(meta, task, seeds).toString(), task: task, code: digests[task], counts: flags[task].needs_counts]
            about + [id: one.id, seeds: seeds, protocols: protocols.join(','), device: flags[task].uses_device ? 'gpu' : 'cpu', tasks: [one]]
        }
        .findAll { evaluation -> evaluation.protocols }
    return apart.size() > 1 && isSmall(meta, groups, opts) ? [apart[0] + [id: meta.id, device: 'cpu', tasks: apart.collectMany { one -> one.tasks }]] : apart
}

// --max_together: millions of values, of all seeds
def isSmall(meta, groups, opts) {
    def values = (meta.n_cells ?: 0L) * (meta.n_dimensions ?: 0) * words(meta.seeds).size()
    return groups.size() == 1 && opts.max_together > 0 && values <= 1e6 * opts.max_together
}

// 'kang.pca.42.recall'; with the seeds where they are apart
def evaluationId(meta, task, seeds) {
    return "${meta.id}.${task}${seeds == meta.seeds ? '' : ".${seeds}"}"
}

// embeddings requested only by experiments are scored under `corrected` alone
def protocolsFor(uses, opts) {
    return inMainRun(uses) ? words(opts.protocols) : ['corrected']
}

// an embedding may be wanted by the main run, by experiments, or by both
def inMainRun(uses) {
    return uses.any { use -> !use.experiment }
}

// what maps and experiments on embeddings show: the models of the main run that are compared, those refitted per seed once
def isCompared(meta, uses, opts) {
    def shown = uses.any { use -> !use.experiment && !(use.role in ['floor', 'ceiling', 'predictor']) }
    return shown && !meta.layer_of && meta.seed == words(opts.seeds)[0]
}

// predictors of expression have no embedding: some tasks score them nevertheless
def tasksFor(uses, tasks) {
    def wanted = inMainRun(uses) ? tasks.main : tasks.experiments
    def predictor = uses.any { use -> use.role == 'predictor' }
    return wanted.findAll { task -> tasks.flags[task].scores_predictors || !predictor }
}

// every combination of embedding and task, so that a missing result appears as a row with its status and the reason.
// plans: data set -> what PLAN wrote of it; digests: task -> digest of its code
def expectedRuns(requests, tasks, plans, digests, opts) {
    def failed = failures()
    return requests.collectMany { meta, _weights, uses ->
        [tasksFor(uses, tasks), uses]
            .combinations()
            .collect { task, use ->
                def ids = [meta.id, meta.layer_of] + ([meta.seeds] + words(meta.seeds)).collect { seeds -> evaluationId(meta, task, seeds).toString() }
                def failure = ids.findResult { id -> failed[id] }
                def said = [failure: failure ? "${failure.reason}; its folder: ${failure.folder}".toString() : '', not_applicable: plans[meta.dataset]?.not_applicable?.get(task) ?: '']
                meta.subMap(['id', 'dataset', 'model', 'variant', 'fit_on', 'seeds']) + use + said + [task: task, code: digests[task], protocols: protocolsFor(uses, opts).join(',')]
            }
    }
}

// what the run will do, for an estimate of its cost; files are numbered as Nextflow stages them
def planOf(datasets, requests, tasks, experiments, opts) {
    def given = datasets.findAll { _meta, path, _cell_table -> path }.collect { meta, path, _cell_table -> [meta.id, path] }
    def staged = given.withIndex().collectEntries { pair, at -> [pair[0], "inputs${at + 1}/${pair[1].name}".toString()] }
    def table = modelTable()
    return [
        datasets: datasets.collect { meta, _path, _cell_table -> [name: meta.id, file: staged[meta.id]] + meta.row.subMap(['perturbation_column', 'control_label', 'batch_column', 'organism', 'perturbation_type']) },
        embed: requests.findAll { meta, _weights, _uses -> !meta.layer_of }.collect { meta, _weights, _uses -> meta.subMap(['dataset', 'variant', 'model', 'fit_on', 'settings']) + [n_dimensions: table[meta.variant]?.n_dimensions ?: ''] },
        evaluate: requests.collectMany { meta, _weights, uses -> tasksFor(uses, tasks).collect { task -> [id: meta.id, dataset: meta.dataset, variant: meta.variant, task: task, n_seeds: words(meta.seeds).size()] } },
        compared: requests.findAll { meta, _weights, uses -> isCompared(meta, uses, opts) }.collect { meta, _weights, _uses -> meta.subMap(['dataset', 'variant']) },
        experiments: experiments,
        maps: !opts.skip_maps,
        n_draws: opts.n_draws,
        max_together: opts.max_together,
    ]
}
