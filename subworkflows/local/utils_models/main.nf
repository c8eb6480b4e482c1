//
// The models as lists: rows of assets/models.csv, embeddings that people bring, hidden states. The parameters have been checked (utils_request).
//

include { codeDigest ; folderDigest } from '../utils_code/main'
include { namesInGroup } from '../utils_obsm/main'
include { checkValue ; didYouMean ; loadSchema ; words } from '../utils_schema/main'
include { samplesheetToList } from '../utils_sheet/main'

// stop with a message that names what is known
def checkKnown(kind, wanted, known) {
    def unknown = wanted.findAll { name -> !(name in known) }
    if (unknown) {
        error("Unknown ${kind}: ${unknown.join(', ')}.${didYouMean(unknown[0], known)}")
    }
}

// CSV of assets/ -> list of maps
def assetTable(path) {
    return file(path, checkIfExists: true).splitCsv(header: true, quote: '"')
}

// assets/models.csv, by id
def modelTable() {
    return assetTable("${projectDir}/assets/models.csv").collectEntries { row -> [row.id, row] }
}

// rows of assets/models.csv that the user selected, in the user's order, with the --model_settings merged in
def selectedModels(opts) {
    return modelSpecs(words(opts.models), opts)
}

// 'scvi:max_epochs=20' -> [ ['scvi', 'max_epochs=20'] ]
def extraSettings(opts) {
    return words(opts.model_settings).collect { pair -> [pair.tokenize(':')[0], pair.substring(pair.indexOf(':') + 1)] }
}

// what a run needs to know of some variants of assets/models.csv
def modelSpecs(ids, opts) {
    def table = modelTable()
    def extra = extraSettings(opts)
    def digests = ids.collect { id -> table[id].model }.unique().collectEntries { model -> [model, codeDigest(["embed_${model}.py"], ['models.csv'])] }
    return ids.collect { id ->
        def row = table[id]
        def weights = weightsOf(row, opts)
        def settings = (row.settings ?: '').tokenize(';') + extra.findAll { pair -> pair[0] == id }.collect { pair -> pair[1] }
        [
            model: row.model.toString(),
            variant: id.toString(),
            role: row.role.toString(),
            fit_on: (row.fit_on ?: 'none').toString(),
            seeded: row.seeded == 'true',
            settings: settings.collect { setting -> setting.toString() },
            weights: weights,
            env: row.env.toString(),
            device: row.device.toString(),
            code: row.weights_files ? "${digests[row.model]} ${row} ${folderDigest(weights)}".md5().substring(0, 12) : digests[row.model],
        ]
    }
}

// folder of a checkpoint under --weights
def checkpointFolder(row, opts) {
    return file("${opts.weights}/${row.model}")
}

// that folder for a foundation model, which must be there; nothing for others
def weightsOf(row, opts) {
    if (row.role != 'foundation') {
        return []
    }
    if (!opts.weights) {
        error("The model ${row.id} needs its authors' checkpoint: fetch it (./plumb fetch ${row.id} --output WEIGHTS) and give --weights WEIGHTS.")
    }
    def folder = checkpointFolder(row, opts)
    if (!folder.exists()) {
        error("No checkpoint of ${row.id} at ${folder}. Fetch it: ./plumb fetch ${row.id} --output ${opts.weights}")
    }
    return folder
}

// rows of the sheet of embeddings, as variants that apply to one data set
def selectedEmbeddings(opts, dataset_ids) {
    if (!opts.embeddings) {
        return []
    }
    return namedEmbeddings(opts).collect { meta, path ->
        checkKnown("data set in ${opts.embeddings}", [meta.dataset], dataset_ids)
        def settings = meta.key ? ["key=${meta.key}".toString()] : []
        [
            model: 'external',
            variant: meta.name.toString(),
            role: 'external',
            fit_on: (meta.fit_on ?: 'none').toString(),
            seeded: false,
            settings: settings,
            weights: file(path, glob: false),
            env: 'base',
            device: 'cpu',
            code: codeDigest(['embed_external.py'], ['models.csv']),
            only: meta.dataset.toString(),
        ]
    }
}

// hidden states that settings ask for (plumbline/models/runtime/layers.py): ['layers=0+4'] -> ['layer0', 'layer4']
def layerNames(settings) {
    def poolings = settingOf(settings, 'layer_pooling', 'own').tokenize('+')
    return settingOf(settings, 'layers', '')
        .tokenize('+')
        .collectMany { number ->
            poolings.collect { pooling -> "layer${number}${pooling == 'own' ? '' : "_${pooling}"}".toString() }
        }
}

// the last value that settings, ['layers=0+4', ...], give a name
def settingOf(settings, name, otherwise) {
    def given = settings.findAll { setting -> setting.startsWith("${name}=") }
    return given ? given.last().tokenize('=').last() : otherwise
}

// an embedding and, as further ones that come out of the same task, its hidden states
def withLayers(meta, weights, uses) {
    return [[meta, weights, uses]] + layerNames(meta.settings).collect { layer ->
        [meta + [id: "${meta.id}.${layer}".toString(), variant: "${meta.variant}.${layer}".toString(), layer_of: meta.id], weights, uses]
    }
}

// rows of that sheet, one per embedding
def namedEmbeddings(opts) {
    return samplesheetToList(opts.embeddings, "${projectDir}/assets/schema_embeddings.json").collectMany { meta, path ->
        def (rows, wrong) = meta.key == '*' ? entriesOf(meta, file(path, glob: false)) : [[meta], '']
        if (wrong) {
            error("The sheet ${opts.embeddings} cannot be used: the key '*' stands for all entries of obsm, but ${wrong}. Give each embedding a row of its own, with its key.")
        }
        rows.collect { row -> [row, path] }
    }
}

// the key '*' makes each entry of an obsm an embedding called NAME.ENTRY: [ rows, '' ] or [ [], the reason why not ]
def entriesOf(meta, path) {
    def properties = loadSchema("${projectDir}/assets/schema_embeddings.json").items.properties
    def (keys, reason) = namesInGroup(path, 'obsm')
    def rows = keys.collect { key -> meta + [key: key, name: "${meta.name}.${key.replaceAll('[^A-Za-z0-9_-]+', '_')}".toString()] }
    def wrong = rows.collectMany { row -> ['key', 'name'].collectMany { column -> checkValue("entry '${row.key.take(60)}'", row[column], properties[column]) } }
    return reason || wrong ? [[], "${path}: ${reason ?: wrong[0]}".toString()] : [rows, '']
}
