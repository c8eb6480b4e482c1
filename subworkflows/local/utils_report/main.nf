//
// What MultiQC shows about the run itself: versions of all tools, parameters
//

// the parameters as a section of the report
def parametersSection(opts) {
    def rows = opts.findAll { _name, value -> value != null && !(value instanceof Map) }.sort().collect { name, value -> "<dt>${name}</dt><dd><samp>${value}</samp></dd>" }
    return """
        |id: 'plumbline-summary'
        |section_name: 'Parameters of this run'
        |plot_type: 'html'
        |data: |
        |    <dl class="dl-horizontal">${rows.join('')}</dl>
        |""".stripMargin().toString()
}

workflow ABOUT_RUN {
    take:
    opts // typed parameters

    main:
    ch_workflow = channel.value("Workflow:\n  ${workflow.manifest.name}: ${workflow.manifest.version}\n  Nextflow: ${workflow.nextflow.version}".toString())
    ch_versions = channel
        .topic('versions')
        .map { process, tool, version -> [process.tokenize(':').last(), "  ${tool}: ${version}".toString()] }
        .unique()
        .groupTuple()
        .map { process, lines -> "${process}:\n${lines.sort().join('\n')}".toString() }
        .mix(ch_workflow)
        .collectFile(storeDir: "${opts.outdir}/pipeline_info", name: 'plumbline_software_mqc_versions.yml', sort: true, newLine: true)
    ch_parameters = channel.of(parametersSection(opts)).collectFile(name: 'workflow_summary_mqc.yaml')

    emit:
    sections = ch_versions.mix(ch_parameters)
}
