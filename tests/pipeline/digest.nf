// Prints what plumbline's own digest sees behind a script: one file a line
include { binFolder ; importClosure } from '../../subworkflows/local/utils_code/main'

workflow {
    def roots = params.roots.tokenize(',').collect { name -> file("${binFolder()}/${name}", checkIfExists: true) }
    importClosure(roots, roots).each { source -> println("FILE ${source}") }
}
