//
// Parameters against nextflow_schema.json: types, ranges, patterns, help. A plugin (nf-schema) would need the network at
// every first run, and lets an integer be 20.5.
//

def loadSchema(path) {
    return new groovy.json.JsonSlurper().parseText(file(path, checkIfExists: true).text)
}

// every parameter of a nextflow_schema.json: name -> specification (+ group and required flag)
def schemaParams(schema) {
    return schema['$defs']
        .values()
        .collectEntries { group ->
            group.properties.collectEntries { name, spec -> [name, spec + [group: group.title, required: name in (group.required ?: [])]] }
        }
}

// command line values are strings since Nextflow 26.04, and guessed before (`--seeds 42` is a number): convert to the
// type the schema declares, and leave what does not convert as it is, for checkValue to refuse
def castValue(value, type) {
    if (type == 'string' && value instanceof Number) {
        return value.toString()
    }
    if (!(value instanceof CharSequence)) {
        return value
    }
    def text = value.toString()
    if (type == 'boolean' && text.toLowerCase() in ['true', 'false']) {
        return text.toLowerCase() == 'true'
    }
    if (type == 'integer' && text ==~ /-?\d+/) {
        return text.size() < 10 ? text.toInteger() : text.toBigInteger()
    }
    if (type == 'number' && text ==~ /-?\d+(\.\d+)?([eE][-+]?\d{1,3})?/) {
        return text.toBigDecimal()
    }
    return text
}

// what a type is called in a message, and whether a value is of it
def expectedType(value, type) {
    // by its digits: Nextflow's formatter writes Number for Long and BigInteger
    def whole = value instanceof Number && value.toString() ==~ /-?\d+/
    def known = [
        string: ['text', value instanceof CharSequence],
        boolean: ['true or false', value instanceof Boolean],
        integer: ['a whole number', whole],
        number: ['a number', value instanceof Number],
    ]
    return known[type]
}

// the messages of one value against one specification
def checkValue(label, value, spec) {
    def (expected, fits) = expectedType(value, spec.type)
    if (!fits) {
        return ["${label}: expected ${expected}, got ${value instanceof Collection ? 'a list' : "'${value}'"}".toString()]
    }
    if (spec['enum'] != null && !(value in spec['enum'])) {
        return ["${label}: '${value}' is not one of ${spec['enum'].join(', ')}.${didYouMean(value.toString(), spec['enum'])}".toString()]
    }
    return value instanceof CharSequence ? checkText(label, value.toString(), spec) : value instanceof Number ? checkRange(label, value, spec) : []
}

// lengths first: a message repeats the text only if it is short
def checkText(label, text, spec) {
    def longest = spec.maxLength ?: 4096
    if (text.size() > longest) {
        return ["${label}: ${text.size()} characters, at most ${longest} are allowed".toString()]
    }
    if (text =~ /\p{Cntrl}/) {
        return ["${label}: holds a line break, a tab or another control character".toString()]
    }
    if (spec.pattern && !(text =~ spec.pattern).find()) {
        return ["${label}: '${text}': ${spec.errorMessage ?: "does not match ${spec.pattern}"}".toString()]
    }
    return spec.format in ['path', 'file-path', 'directory-path'] ? checkPath(label, text, spec) : []
}

def checkRange(label, number, spec) {
    if (spec.minimum != null && number < spec.minimum) {
        return ["${label}: ${number} is below the minimum ${spec.minimum}".toString()]
    }
    if (spec.maximum != null && number > spec.maximum) {
        return ["${label}: ${number} is above the maximum ${spec.maximum}".toString()]
    }
    return []
}

// `exists: true` wants something there; what is there must be of the kind
def checkPath(label, text, spec) {
    def (path, reason) = locate(text)
    def kind = [path: 'either', 'file-path': 'file', 'directory-path': 'folder'][spec.format]
    if (reason) {
        return spec.exists || path == null ? ["${label}: ${reason}".toString()] : []
    }
    def found = path.isDirectory() ? 'folder' : 'file'
    return kind in ['either', found] ? [] : ["${label}: '${text}' is a ${found}, expected a ${kind}".toString()]
}

// what lies at a path or URL: [ path, '' ], or [ path or null, the reason why it cannot be used ]
def locate(text) {
    if (text.startsWith('~')) {
        return [null, "'${text}': write the home folder in full, '~' is known to shells alone".toString()]
    }
    def url = text ==~ /[a-z0-9]+:\/\/.*/
    def special = text.findAll(url ? /[\[\]{}*$`"'\\\s]/ : /[\[\]{}*?$`"'\\]/).unique()
    if (special) {
        return [null, "the path '${text}' holds ${special.join(' ')}, which a shell would interpret. Rename it, or link to it under another name".toString()]
    }
    try {
        def path = file(text, glob: false)
        def missing = url ? "there is no answer from '${text}', or it has no such file. Open it in a browser, or download it and give its path" : "'${text}' does not exist (${path}). Paths are absolute, or relative to where you start the run (in a sheet, also to its own folder)"
        return path.exists() ? [path, ''] : [path, missing.toString()]
    }
    catch (Exception failure) {
        return [null, "'${text}' cannot be opened: ${failure.message ?: failure.class.simpleName}".toString()]
    }
}

// ' Did you mean ...?' for a mistyped word, else what is known
def didYouMean(word, known) {
    return nearest(word, known) ?: " Known: ${known.take(60).join(', ')}${known.size() > 60 ? ' ...' : ''}."
}

// ' Did you mean ...?' or nothing: close spellings, and longer or shorter forms (batch, batch_column)
def nearest(word, known) {
    def lower = word.take(100).toLowerCase()
    def allowed = lower.size() < 4 ? 1 : Math.max(2, lower.size().intdiv(3))
    def distances = known.collectEntries { name -> [name, edits(lower, name.toString().toLowerCase())] }
    def close = distances.findAll { _name, distance -> distance <= allowed }.sort { entry -> entry.value }.keySet() as List
    def longer = known.findAll { name -> lower.size() > 2 && (name.startsWith(lower) || lower.startsWith(name)) }
    def hints = (close + longer).unique().take(3)
    return hints ? " Did you mean ${hints.collect { name -> "'${name}'" }.join(' or ')}?" : ''
}

// letters to change, insert or delete between two words (Levenshtein)
def edits(from, to) {
    def first = (0..to.size()).toList()
    return from.toList().inject(first) { above, letter ->
        to
            .toList()
            .withIndex()
            .inject([above[0] + 1]) { row, other ->
                def (wanted, at) = other
                row + [[row[-1] + 1, above[at + 1] + 1, above[at] + (wanted == letter ? 0 : 1)].min()]
            }
    }[-1]
}

// params with the types of the schema: pass this on instead of params
def typedParams(params_map, schema_path) {
    def specs = schemaParams(loadSchema(schema_path))
    return params_map.collectEntries { name, value -> [name, specs[name] ? castValue(value, specs[name].type) : value] }
}

// name -> messages, of every parameter that is missing or not as the schema wants it
def parameterErrors(typed, schema_path) {
    return schemaParams(loadSchema(schema_path))
        .collectEntries { name, spec ->
            def value = typed[name]
            def missing = spec.required ? ["--${name}: required parameter is missing".toString()] : []
            [name, value == null ? missing : checkValue("--${name}", value, spec)]
        }
        .findAll { _name, messages -> messages }
}

// messages for names that were given (on the command line, in a parameter file) and are in no schema; a site's
// configuration may set parameters of its own
def unknownParameters(given, schema_path) {
    def known = schemaParams(loadSchema(schema_path)).keySet().collect { name -> "--${name}".toString() }
    def unknown = given.collect { name -> "--${name}".toString() }.findAll { name -> !(name in known) }
    return unknown.collect { name -> "${name}: there is no such parameter.${nearest(name, known)} --help shows all".toString() }
}

// the help: every parameter by group, with what it may be and its default
def paramsHelp(schema_path, command) {
    def schema = loadSchema(schema_path)
    def head = [schema.title, schema.description, '', "Typical use: ${command}", '']
    def groups = schemaParams(schema).groupBy { _name, spec -> spec.group }.collectMany { group, items -> [group] + items.collect { name, spec -> helpLine(name, spec) } + [''] }
    return (head + groups).join('\n')
}

def helpLine(name, spec) {
    def type = spec['enum'] ? spec['enum'].join('|') : spec.type
    return "  --${name.padRight(22)} [${type}] ${spec.description}${spec['default'] != null ? " [default: ${spec['default']}]" : ''}"
}

// 'a, b' -> ['a', 'b']
def words(text) {
    return (text ?: '').toString().tokenize(',').collect { word -> word.trim() }.findAll { word -> word }
}
