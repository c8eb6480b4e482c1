#!/usr/bin/env nextflow

//
// Prints what plumbline says to many wrong parameters, sheets and names: a line of JSON per case of the file params.cases
//

include { folderDigest } from '../../../subworkflows/local/utils_code/main'
include { entriesOf } from '../../../subworkflows/local/utils_models/main'
include { catalogueNote } from '../../../subworkflows/local/utils_plumbline/main'
include { nameErrors ; optionErrors ; profileErrors } from '../../../subworkflows/local/utils_request/main'
include { loadSchema ; typedParams ; unknownParameters } from '../../../subworkflows/local/utils_schema/main'
include { sheetRows } from '../../../subworkflows/local/utils_sheet/main'

def messages(test) {
    def schema = "${projectDir}/nextflow_schema.json"
    if (test.sheet) {
        return sheetRows(test.sheet, loadSchema("${projectDir}/assets/${test.schema}"))[1]
    }
    if (test.ids) {
        return nameErrors(test.ids, test.models, test.requests, test.experiments)
    }
    if (test.profiles) {
        return profileErrors(test.parameters, test.profiles)
    }
    if (test.row) {
        return [catalogueNote(test.row, test.listed)].findAll { note -> note }
    }
    if (test.folder) {
        return [folderDigest(file(test.folder))]
    }
    if (test.entries) {
        def (rows, reason) = entriesOf([name: 'mine'], file(test.entries))
        return reason ? [reason] : rows.collect { row -> "${row.name}=${row.key}".toString() }
    }
    return unknownParameters(test.parameters.keySet(), schema) + optionErrors(typedParams(test.parameters, schema), schema)
}

workflow {
    new groovy.json.JsonSlurper()
        .parse(file(params.cases))
        .each { test ->
            println("CASE ${groovy.json.JsonOutput.toJson(messages(test))}")
        }
}
