//
// The request as a whole, before the first task: every parameter against its schema, and what a schema cannot say (names
// that must be known, lists without repeats, settings of models, ids that must differ). All that is wrong is one error.
//

include { reportErrors } from '../utils_report/main'
include { castValue ; checkValue ; didYouMean ; loadSchema ; parameterErrors ; typedParams ; unknownParameters ; words } from '../utils_schema/main'
include { modelTable } from '../utils_models/main'
include { taskNames } from '../utils_plumbline/main'

// the parameters with the types of the schema; or one error with all that is wrong
def checkedParameters(params_map, stray_words) {
    def schema = "${projectDir}/nextflow_schema.json"
    def opts = typedParams(params_map, schema)
    // Nextflow itself leaves a 'true' behind some of its options (-stub-run)
    def stray = stray_words.findAll { word -> word != 'true' }.collect { word -> "${word}: belongs to no parameter. Lists have commas and no spaces: a,b".toString() }
    def errors = stray + unknownParameters(givenNames(), schema) + optionErrors(opts, schema) + profileErrors(opts, words(workflow.profile))
    stopIfAny('These parameters cannot be used', errors)
    return opts
}

def stopIfAny(title, errors) {
    if (errors) {
        error("${title}:\n\n${errors.collect { message -> "  * ${message}" }.join('\n')}\n")
    }
}

// all that is wrong with the values of the parameters
def optionErrors(opts, schema) {
    def wrong = parameterErrors(opts, schema)
    return wrong.values().flatten() + requestErrors(opts + wrong.collectEntries { name, _messages -> [name, null] })
}

// names of the parameters on the command line and in the file of -params-file
def givenNames() {
    def line = workflow.commandLine
    def named = line.findAll(/(?<=\s)--[A-Za-z][\w-]*/).collect { word -> word.drop(2) }
    def path = (line =~ /\s-params-file[ =]'?([^\s']+)/).findAll().collect { found -> file(found[1], glob: false) }.find { found -> found.exists() }
    def listed = path ? (path.name.endsWith('.json') ? new groovy.json.JsonSlurper() : new groovy.yaml.YamlSlurper()).parseText(path.text) : [:]
    return (named + (listed instanceof Map ? listed.keySet() as List : [])).unique()
}

// what a profile needs: without its folder, uv would leave each task to whatever python is on the PATH
def profileErrors(opts, profiles) {
    def lacking = 'uv' in profiles && !opts.env_dir
    return lacking ? ['--env_dir: -profile uv needs the folder of its environments. ./plumb setup makes it and prints its path; ./plumb run adds both by itself'] : []
}

// what a schema cannot say; null stands for a parameter that the schema refused already
def requestErrors(opts) {
    def models = modelTable()
    def known = [
        models: models.keySet(),
        tasks: taskNames(),
        experiment_tasks: taskNames(),
        experiments: allExperiments(),
    ]
    def errors = known.collectMany { name, names -> opts[name] == 'all' && name != 'models' ? [] : unknownEntries(name, opts[name], names) }
    errors += ['models', 'tasks', 'experiment_tasks', 'experiments', 'protocols', 'seeds', 'shares', 'damages'].collectMany { name -> repeatedEntries(name, opts[name]) }
    errors += words(opts.seeds).findAll { seed -> seed.toBigInteger() > 4294967295 }.collect { seed -> "--seeds: ${seed} is above 4294967295".toString() }
    errors += words(opts.shares).findAll { share -> !share.isNumber() || share.toBigDecimal() <= 0 || share.toBigDecimal() > 1 }.collect { share -> "--shares: ${share} is not a share of the train cells. Shares are above 0 and at most 1".toString() }
    return errors + reportErrors(opts) + settingErrors(opts, models)
}

def allExperiments() {
    return ['count_distribution', 'minimal_data', 'cells_per_perturbation', 'transfer', 'cross_context', 'robustness', 'objectives', 'gene_recall', 'integrity', 'generality', 'cost']
}

def unknownEntries(name, text, known) {
    def empty = text != null && !words(text) ? ["--${name}: is empty".toString()] : []
    return empty + words(text).findAll { word -> !(word in known) }.collect { word -> "--${name}: '${word}' is not known.${didYouMean(word, known)}".toString() }
}

// '0.5' and '0.50' are the same
def repeatedEntries(name, text) {
    def times = words(text).countBy { word -> word.isNumber() ? word.toBigDecimal().stripTrailingZeros() : word }
    return times.findAll { _word, count -> count > 1 }.keySet().collect { word -> "--${name}: ${word} is there twice".toString() }
}

// stops at names that cannot be told apart
def checkNames(ids, models, requests, experiments) {
    stopIfAny('These names cannot be used', nameErrors(ids, models, requests, experiments))
}

// embeddings that would be taken for a model of plumbline, and two data sets or embeddings of one id
def nameErrors(ids, models, requests, experiments) {
    def own = models.findAll { spec -> spec.only && modelTable().containsKey(spec.variant) }.collect { spec -> spec.variant }.unique()
    if (own) {
        return own.collect { name -> "the embedding '${name}' of --embeddings has the name of a model of plumbline. Choose another, such as my_${name}".toString() }
    }
    def held_out = 'objectives' in experiments ? ids.findAll { id -> "${id}.heldout".toString() in ids } : []
    def parts = held_out.collect { id -> "the experiment objectives makes a data set '${id}.heldout' of '${id}', but the sheet has one of that name. Rename it".toString() }
    return parts + requests.groupBy { meta, _weights, _uses -> meta.id }.collectMany { id, group -> sameId(id, group) }
}

// an embedding may be wanted more than once; two different ones may not have one id
def sameId(id, group) {
    def different = group.collect { meta, weights, _uses -> [meta, weights] }.unique().size() > 1
    def owners = group.collect { meta, _weights, _uses -> "'${meta.variant}' of data set '${meta.dataset}'" }.unique()
    return different ? ["${owners.join(' and ')} would both be called '${id}'. Rename one".toString()] : []
}

// --model_settings: model:setting=value, of models and settings that there are, with values that fit
def settingErrors(opts, models) {
    def settings = loadSchema("${projectDir}/assets/schema_settings.json")
    def twice = words(opts.model_settings).countBy { entry -> entry.tokenize('=')[0] }.findAll { _setting, times -> times > 1 }.keySet()
    return twice.collect { setting -> "--model_settings: ${setting} is there twice".toString() } + words(opts.model_settings).collectMany { entry -> settingError(entry, models, settings) }
}

def settingError(entry, models, settings) {
    def parts = entry =~ /^([^:=]+):([^:=]+)=([A-Za-z0-9_.+\/@-]+)$/
    if (!parts) {
        return ["--model_settings: '${entry}': expected model:setting=value, such as pca:n_components=50".toString()]
    }
    def (_all, variant, name, value) = parts[0]
    if (!models.containsKey(variant)) {
        return ["--model_settings: '${entry}': there is no model '${variant}'.${didYouMean(variant, models.keySet())}".toString()]
    }
    def known = settings.models[models[variant].model] + settings.head
    if (!known.containsKey(name)) {
        return ["--model_settings: '${entry}': ${variant} has no setting '${name}'.${didYouMean(name, known.keySet())}".toString()]
    }
    return checkValue("--model_settings: ${variant}:${name}", castValue(value, known[name].type), known[name])
}
