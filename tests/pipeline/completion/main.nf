#!/usr/bin/env nextflow

//
// A run that does nothing and announces its end once per entry of the file params.cases, each with parameters of its own
//

include { announce } from '../../../subworkflows/local/utils_completion/main'

workflow {
    def cases = new groovy.json.JsonSlurper().parse(file(params.cases))
    workflow.onComplete { cases.each { opts -> announce(opts, [:]) } }
}
