//
// What MultiQC shows about the run itself: versions of all tools, parameters
//

// parameters that were set, less those that another start would set otherwise
def lastingParameters(opts) {
    return opts.findAll { name, value -> value != null && !(value instanceof Map) && !(name in ['help', 'trace_report_suffix']) }.sort()
}

// the parameters as a section of the report
def parametersSection(opts) {
    def rows = lastingParameters(opts).collect { name, value -> "<dt>${name}</dt><dd><samp>${groovy.xml.XmlUtil.escapeXml(value.toString())}</samp></dd>" }
    return """
        |id: 'plumbline-summary'
        |section_name: 'Parameters of this run'
        |plot_type: 'html'
        |data: |
        |    <dl class="dl-horizontal">${rows.join('')}</dl>
        |""".stripMargin().toString()
}

// the parameters as JSON, for -params-file; local environments are ./plumb's own
def parametersFile(opts) {
    return groovy.json.JsonOutput.prettyPrint(groovy.json.JsonOutput.toJson(lastingParameters(opts) - opts.subMap(['env_dir'])))
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
    // a run with `-params-file` of this file repeats the run
    channel.of(parametersFile(opts)).collectFile(storeDir: "${opts.outdir}/pipeline_info", name: "params_${opts.trace_report_suffix}.json", newLine: true)
    ch_parameters = channel.of(parametersSection(opts)).collectFile(name: 'workflow_summary_mqc.yaml')

    emit:
    sections = ch_versions.mix(ch_parameters)
}
