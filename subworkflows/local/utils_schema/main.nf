//
// The nf-schema functions the pipeline uses (same names, same schema files), without a plugin: a plugin would need the
// network at every first run. Going back to nf-schema is a change of the include lines.
//

def loadSchema(path) {
    return new groovy.json.JsonSlurper().parseText(file(path, checkIfExists: true).text)
}

// every parameter of a nextflow_schema.json: name -> specification (+ group and required flag)
def schemaParams(schema) {
    def props = [:]
    def groups = (schema['$defs'] ?: schema.definitions ?: [:])
    groups.each { group_name, group ->
        (group.properties ?: [:]).each { name, spec ->
            props[name] = spec + [group: group.title ?: group_name, required: name in (group.required ?: [])]
        }
    }
    (schema.properties ?: [:]).each { name, spec ->
        props[name] = spec + [group: 'Other', required: name in (schema.required ?: [])]
    }
    return props
}

// command line values are strings since Nextflow 26.04, and guessed before (`--seeds 42` is a number): convert to the
// type the schema declares
def castValue(value, type) {
    def types = type instanceof List ? type : [type]
    if (value instanceof Number && 'string' in types && !('integer' in types) && !('number' in types)) {
        return value.toString()
    }
    if (!(value instanceof CharSequence)) {
        return value
    }
    def str = value.toString()
    if ('boolean' in types && str.toLowerCase() in ['true', 'false']) {
        return str.toLowerCase() == 'true'
    }
    if ('integer' in types && str ==~ /-?\d+/) {
        return str.toLong() == str.toLong().intValue() ? str.toInteger() : str.toLong()
    }
    if ('number' in types && str ==~ /-?\d+(\.\d+)?([eE][-+]?\d+)?/) {
        return str.toBigDecimal()
    }
    return str
}

def typeOk(value, type) {
    def types = type instanceof List ? type : [type]
    return types.any { t ->
        t == null || (t == 'string' && value instanceof CharSequence) || (t == 'boolean' && value instanceof Boolean) || (t == 'integer' && (value instanceof Integer || value instanceof Number || value instanceof Number)) || (t == 'number' && value instanceof Number) || (t == 'array' && value instanceof List) || (t == 'object' && value instanceof Map) || (t == 'null' && value == null)
    }
}

// the messages of one value against one specification
def checkValue(label, value, spec) {
    def errors = []
    if (!typeOk(value, spec.type)) {
        return ["${label}: expected ${spec.type}, got '${value}'"]
    }
    if (spec['enum'] != null && !(value in spec['enum'])) {
        errors << "${label}: '${value}' is not one of ${spec['enum'].join(', ')}"
    }
    if (value instanceof CharSequence) {
        if (spec.pattern && !(value.toString() =~ spec.pattern).find()) {
            errors << (spec.errorMessage ? "${label}: '${value}': ${spec.errorMessage}" : "${label}: '${value}' does not match ${spec.pattern}")
        }
        if (spec.minLength != null && value.size() < spec.minLength) {
            errors << "${label}: shorter than ${spec.minLength} characters"
        }
        if (spec.exists && spec.format in ['file-path', 'directory-path', 'path'] && !file(value.toString()).exists()) {
            errors << "${label}: the ${spec.format == 'directory-path' ? 'directory' : 'file'} '${value}' does not exist"
        }
    }
    if (value instanceof Number) {
        if (spec.minimum != null && value < spec.minimum) {
            errors << "${label}: ${value} is below the minimum ${spec.minimum}"
        }
        if (spec.maximum != null && value > spec.maximum) {
            errors << "${label}: ${value} is above the maximum ${spec.maximum}"
        }
    }
    return errors
}

// params with the types of the schema: pass this on instead of params
def typedParams(params_map, schema_path) {
    def specs = schemaParams(loadSchema(schema_path))
    return params_map.collectEntries { name, value -> [name, specs[name] ? castValue(value, specs[name].type) : value] }
}

def validateParameters(params_map, schema_path) {
    def specs = schemaParams(loadSchema(schema_path))
    def typed = typedParams(params_map, schema_path)
    def errors = []
    specs.each { name, spec ->
        def value = typed[name]
        if (value == null) {
            if (spec.required) {
                errors << "--${name}: required parameter is missing"
            }
        }
        else {
            errors.addAll(checkValue("--${name}", value, spec))
        }
    }
    typed
        .keySet()
        .findAll { name -> !specs.containsKey(name) && !name.contains('-') }
        .each { name ->
            log.warn("The parameter --${name} is not in the schema of this pipeline and has no effect")
        }
    if (errors) {
        error("Validation of pipeline parameters failed:\n\n" + errors.collect { msg -> "  * ${msg}" }.join('\n') + "\n")
    }
    return typed
}

def readRows(path) {
    def sheet = file(path, checkIfExists: true)
    if (sheet.name ==~ /.*\.ya?ml/) {
        return new groovy.yaml.YamlSlurper().parseText(sheet.text)
    }
    if (sheet.name.endsWith('.json')) {
        return new groovy.json.JsonSlurper().parseText(sheet.text)
    }
    def sheet_rows = sheet.splitCsv(header: true, sep: sheet.name.endsWith('.tsv') ? '\t' : ',', strip: true, quote: '"')
    // a byte-order mark before the first name is what spreadsheets write (Windows line ends are read as lines anyway)
    return sheet_rows.collect { row -> row.collectEntries { name, value -> [name.replace('\uFEFF', '').trim(), value?.trim()] } }
}

// rows of a samplesheet as [meta, field, ...] in the order of the schema, like nf-schema
def samplesheetToList(path, schema_path) {
    def schema = loadSchema(schema_path)
    def props = schema.items.properties
    def required = schema.items.required ?: []
    def errors = []
    def rows = readRows(path)
    def seen = [] as Set
    def parsed = rows
        .withIndex()
        .collect { row, i ->
            def label = "Entry ${i + 1}"
            def unknown = row.keySet().findAll { col -> !props.containsKey(col) }
            if (unknown && i == 0) {
                log.warn("Columns not in the samplesheet schema are ignored: ${unknown.join(', ')}")
            }
            def meta = [:]
            def fields = []
            props.each { name, spec ->
                def raw = row[name]
                def value = raw == null || raw.toString() == '' ? spec.default : castValue(raw, spec.type)
                if (value == null) {
                    if (name in required) {
                        errors << "${label}: missing required field '${name}'"
                    }
                }
                else {
                    errors.addAll(checkValue("${label}: field '${name}'", value, spec))
                }
                if (spec.meta) {
                    (spec.meta instanceof List ? spec.meta : [spec.meta]).each { key -> meta[key] = value }
                }
                else {
                    fields << (value == null ? [] : (spec.format in ['file-path', 'directory-path', 'path'] ? file(value.toString()) : value))
                }
            }
            (schema.uniqueEntries ?: schema.items.uniqueEntries ?: []).with { keys ->
                if (keys) {
                    def key = keys.collect { k -> row[k] }
                    if (!seen.add(key)) {
                        errors << "${label}: duplicate ${keys.join('+')} ${key.join('+')}"
                    }
                }
            }
            return meta ? [meta] + fields : fields
        }
    if (!rows) {
        errors << "the samplesheet has no rows"
    }
    if (errors) {
        error("Validation of ${file(path).name} failed:\n\n" + errors.collect { msg -> "  * ${msg}" }.join('\n') + "\n")
    }
    return parsed
}

def paramsHelp(schema_path, command, show_hidden) {
    def schema = loadSchema(schema_path)
    def lines = ["${schema.title}", "${schema.description}", '', "Typical use: ${command}", '']
    schemaParams(schema)
        .findAll { _n, spec -> show_hidden || !spec.hidden }
        .groupBy { _n, spec -> spec.group }
        .each { group, items ->
            lines << group
            items.each { name, spec ->
                def type = spec['enum'] ? "${spec['enum'].join('|')}" : "${spec.type}"
                lines << "  --${name.padRight(32)} [${type}] ${spec.description ?: ''}${spec.default != null ? ' [default: ' + spec.default + ']' : ''}"
            }
            lines << ''
        }
    return lines.join('\n')
}
