//
// Sheets (CSV, TSV, JSON, YAML) against their schema. Every message names the file, the line and the column.
//

include { castValue ; checkValue ; didYouMean ; loadSchema } from '../utils_schema/main'

// rows of a sheet as [meta, field, ...] in the order of the schema, like nf-schema; or one error with all that is wrong
def samplesheetToList(path, schema_path) {
    def schema = loadSchema(schema_path)
    def (rows, errors) = sheetRows(path, schema)
    if (errors) {
        error("The sheet ${path} cannot be used:\n\n${errors.collect { message -> "  * ${message}" }.join('\n')}\n")
    }
    return rows.collect { row -> rowFields(row, schema.items.properties) }
}

// [ rows as [label, values], messages ]; label: 'line 3 (kang)'
def sheetRows(path, schema) {
    def (table, unreadable) = readTable(path)
    if (unreadable) {
        return [[], [unreadable]]
    }
    def rows = table.collect { place, values -> [label: values.name ? "${place} (${values.name.toString().take(60)})".toString() : place, values: besideSheet(values, path, schema)] }
    def columns = rows.collectMany { row -> row.values.keySet() as List }.unique()
    def unknown = columns.findAll { name -> !schema.items.properties.containsKey(name) }
    def messages = unknown.collect { name -> "there is no column '${name}'.${didYouMean(name, schema.items.properties.keySet())}".toString() }
    messages += rows ? [] : ['it has no rows']
    messages += rows.collectMany { row -> rowErrors(row, schema.items) }
    return [rows, messages + duplicates(rows, schema.uniqueEntries ?: schema.items.uniqueEntries ?: [])]
}

// paths are relative to where the run starts; one that is not there may lie beside the sheet
def besideSheet(values, sheet, schema) {
    return values.collectEntries { name, value ->
        def text = value?.toString() ?: ''
        // an address has no blanks; what a shell would interpret is refused by checkPath
        def plain = sheet.toString().contains('://') ? /[\w.@+-][\w.@+\/-]*/ : /[^\/~:\[\]{}*?$`"'\\][^:\[\]{}*?$`"'\\]*/
        def relative = schema.items.properties[name]?.format in ['path', 'file-path'] && text ==~ plain
        def beside = relative && !file(text, glob: false).exists() ? file(sheet, glob: false).resolveSibling(text) : null
        [name, beside?.exists() ? beside.toUriString() : value]
    }
}

def rowErrors(row, items) {
    return items.properties.collectMany { name, spec ->
        def value = cellValue(row, name, spec)
        def label = "${row.label}, column '${name}'"
        if (value == null) {
            return name in (items.required ?: []) ? ["${label}: is empty".toString()] : []
        }
        // 1.10 would become 1.1
        def rounded = spec.type == 'string' && row.values[name] instanceof Number && !(row.values[name].toString() ==~ /-?\d+/)
        // in YAML, no and off are truth values
        def truth = spec.type == 'string' && row.values[name] instanceof Boolean
        def changed = rounded ? 'its digits may change' : truth ? "it is read as a truth value, '${value}'" : ''
        return changed ? ["${label}: put quotes around ${truth ? 'the text' : value}, or ${changed}".toString()] : checkValue(label, value, spec)
    }
}

def cellValue(row, name, spec) {
    def raw = row.values[name]
    return raw == null || raw.toString() == '' ? spec['default'] : castValue(raw, spec.type)
}

// names become file names, which not every disk tells apart by upper and lower case
def duplicates(rows, keys) {
    def groups = keys ? rows.groupBy { row -> keys.collect { key -> row.values[key]?.toString()?.toLowerCase() } } : [:]
    return groups
        .findAll { _key, same -> same.size() > 1 }
        .collect { _key, same ->
            def names = same.collect { row -> keys.collect { key -> row.values[key] }.join(', ') }.unique()
            "${same.collect { row -> row.label }.join(' and ')}: the same ${keys.join(' and ')} (${names.join(' and ')})${names.size() > 1 ? ' but for upper and lower case' : ''}".toString()
        }
}

def rowFields(row, properties) {
    def values = properties.collectEntries { name, spec -> [name, cellValue(row, name, spec)] }
    def meta = properties.findAll { _name, spec -> spec.meta }.collectEntries { name, spec -> [spec.meta[0], values[name]] }
    return [meta] + properties.findAll { _name, spec -> !spec.meta }.collect { name, _spec -> values[name] == null ? [] : values[name] }
}

// [ [place, map of values] per row, '' ], or [ [], why the file is not a table ]
def readTable(path) {
    def sheet = file(path, glob: false)
    if (sheet.size() > 10_000_000) {
        return [[], 'it is larger than 10 MB. A sheet has a row per data set, not per cell']
    }
    def (text, reason) = decoded(sheet.bytes)
    if (reason) {
        return [[], reason]
    }
    return sheet.name ==~ /(?i).*\.(json|ya?ml)/ ? parseRecords(text, sheet.name) : parseLines(text, sheet.name.toLowerCase().endsWith('.tsv') ? '\t' : ',')
}

// [ text without byte-order mark, '' ] or [ '', the reason ]
def decoded(bytes) {
    def start = bytes.size() < 2 ? '' : new String(bytes, 0, 2, 'ISO-8859-1')
    if (start in ['\u00FF\u00FE', '\u00FE\u00FF']) {
        return ['', 'it is UTF-16 text. Save it as "CSV UTF-8"']
    }
    if (start == 'PK') {
        return ['', 'it is an Excel workbook or another zip file. Save it as "CSV UTF-8"']
    }
    if (bytes.any { value -> value == 0 }) {
        return ['', 'it is not text. A sheet is CSV, TSV, JSON or YAML']
    }
    try {
        def text = java.nio.charset.StandardCharsets.UTF_8.newDecoder().decode(java.nio.ByteBuffer.wrap(bytes)).toString()
        return text.trim() ? [text.replaceFirst('^\uFEFF', ''), ''] : ['', 'it is empty']
    }
    catch (Exception _failure) {
        return ['', 'it is not UTF-8 text (Latin-1 or Windows-1252?). Save it as "CSV UTF-8"']
    }
}

def parseRecords(text, name) {
    try {
        def rows = name.toLowerCase().endsWith('.json') ? new groovy.json.JsonSlurper().parseText(text) : new groovy.yaml.YamlSlurper().parseText(text)
        if (!(rows instanceof List) || !rows.every { row -> row instanceof Map }) {
            return [[], 'it is not a list of rows. Expected: [{"name": "kang", "path": "kang.h5ad"}, ...]']
        }
        return [rows.withIndex().collect { row, at -> ["row ${at + 1}".toString(), row.collectEntries { key, value -> [key.toString().trim(), value] }] }, '']
    }
    catch (Exception failure) {
        return [[], "it cannot be read as ${name.tokenize('.').last()}: ${failure.message?.readLines()?.find { line -> line.trim() } ?: failure.class.simpleName}".toString()]
    }
}

// CSV or TSV with a header; rows and nameless columns that are empty (spreadsheets export some) do not count
def parseLines(text, separator) {
    def (lines, unclosed) = splitCells(text, separator)
    if (unclosed) {
        return [[], "line ${unclosed}: a quote is opened and not closed".toString()]
    }
    def filled = lines.findAll { _number, cells -> cells.any { cell -> cell } }
    def header = filled[0][1]
    def rows = filled.drop(1)
    def problem = headerError(header, separator) ?: rows.findResult { number, cells -> lineError(number, cells, header) }
    if (problem) {
        return [[], problem]
    }
    def columns = header.indexed().findAll { _at, name -> name }
    return [rows.collect { number, cells -> ["line ${number}".toString(), columns.collectEntries { at, name -> [name, cells[at]] }] }, '']
}

def headerError(header, separator) {
    def other = [';', '\t', ','].find { sign -> sign != separator && header.size() == 1 && header[0].contains(sign) }
    if (other) {
        def names = [';': 'semicolons', '\t': 'tabs', ',': 'commas']
        return "columns are separated by ${names[other]}, expected ${names[separator]}${other == '\t' ? ' (or the ending .tsv)' : ''}".toString()
    }
    if (header[0].startsWith('#')) {
        return "it begins with '${header[0].take(60)}': a sheet has no comments, its first line names the columns".toString()
    }
    def twice = header.findAll { name -> name && header.count(name) > 1 }.unique()
    return twice ? "the column '${twice[0]}' occurs ${header.count(twice[0])} times".toString() : null
}

def lineError(number, cells, header) {
    def beyond = cells.drop(header.size()).findAll { cell -> cell }
    if (beyond || cells.size() < header.size()) {
        return "line ${number}: ${cells.size()} values, but the header has ${header.size()} columns. Put quotes around values that hold a separator; leave empty values empty".toString()
    }
    def nameless = header.indexed().find { at, name -> !name && cells[at] }
    return nameless ? "line ${number}: column ${nameless.key + 1} holds '${cells[nameless.key]}', but has no name".toString() : null
}

// [ [line number, cells] per record, number of the line on which a quote stays open ]; quotes as in RFC 4180
def splitCells(text, separator) {
    def state = text
        .readLines()
        .indexed()
        .inject([records: [], open: null]) { seen, at, line ->
            def whole = seen.open ? "${seen.open.text}\n${line}".toString() : line
            def number = seen.open ? seen.open.number : at + 1
            whole.count('"') % 2 ? [records: seen.records, open: [number: number, text: whole]] : [records: seen.records << [number, cellsOf(whole, separator)], open: null]
        }
    return [state.records, state.open?.number]
}

// one record's cells: parts between separators, joined again where a quote spans several
def cellsOf(record, separator) {
    def (cells, _rest) = (record.split(separator, -1) as List).inject([[], null]) { seen, part ->
        def whole = seen[1] == null ? part : "${seen[1]}${separator}${part}".toString()
        whole.count('"') % 2 ? [seen[0], whole] : [seen[0] << unquoted(whole.trim()), null]
    }
    return cells
}

def unquoted(cell) {
    return cell.size() > 1 && cell.startsWith('"') && cell.endsWith('"') ? cell[1..<-1].replace('""', '"').trim() : cell
}
