//
// What MultiQC shows about the run itself (versions of all tools, parameters, the user's methods text), and its settings
//

// parameters that were set, less those that another start would set otherwise, and who is told of the end of the run
def lastingParameters(opts) {
    def others = ['help', 'trace_report_suffix', 'email', 'email_on_fail', 'plaintext_email', 'max_multiqc_email_size', 'hook_url', 'monochrome_logs']
    return opts.findAll { name, value -> value != null && !(value instanceof Map) && !(name in others) }.sort()
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

// files of settings for MultiQC: a later one replaces what an earlier one sets
def reportConfigs(opts, order, title) {
    return [file("${projectDir}/assets/multiqc_config.yml"), order] + (opts.multiqc_config ? [file(opts.multiqc_config)] : []) + [title]
}

def reportLogo(opts) {
    return file(opts.multiqc_logo ?: "${projectDir}/assets/logo.svg")
}

// --multiqc_methods_description as a section: filled in as nf-core's templates are (${workflow.manifest.version}, ...)
def methodsSection(opts) {
    def run = [workflow: workflow.toMap(), manifest_map: workflow.manifest.toMap(), doi_text: '', nodoi_text: '', tool_citations: '', tool_bibliography: '']
    def text = new groovy.text.SimpleTemplateEngine().createTemplate(file(opts.multiqc_methods_description).text).make(run).toString()
    def given = new groovy.yaml.YamlSlurper().parseText(text)
    return groovy.json.JsonOutput.toJson([section_name: 'Methods description', plot_type: 'html'] + given + [id: 'plumbline_methods_description'])
}

// what is wrong with the user's files for MultiQC, found before the first task and not after the last
def reportErrors(opts) {
    def errors = ['multiqc_config', 'multiqc_methods_description'].collectMany { name -> opts[name] ? yamlErrors(name, opts[name]) : [] }
    if (errors || !opts.multiqc_methods_description) {
        return errors
    }
    try {
        def section = new groovy.json.JsonSlurper().parseText(methodsSection(opts))
        return section.data ? [] : ['--multiqc_methods_description: has no data. Expected section_name, description and data: a text in HTML']
    }
    catch (Exception failure) {
        return ["--multiqc_methods_description: cannot be filled in: ${failure.message.readLines().findAll { line -> line.trim() }.take(2).join(' ')}. A dollar sign of your own is written as \\\$".toString()]
    }
}

def yamlErrors(name, path) {
    try {
        return new groovy.yaml.YamlSlurper().parseText(file(path).text) instanceof Map ? [] : ["--${name}: '${path}' is not a map of settings (name: value)".toString()]
    }
    catch (Exception failure) {
        return ["--${name}: '${path}' cannot be read as YAML: ${failure.message.readLines().take(2).join(' ')}".toString()]
    }
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
    ch_methods = channel.fromList(opts.multiqc_methods_description ? [methodsSection(opts)] : []).collectFile(name: 'methods_description_mqc.json')
    // in a file: a title is a user's text, which no command line gets. MultiQC writes it into its page as it is
    def given = opts.multiqc_title ? [title: groovy.xml.XmlUtil.escapeXml(opts.multiqc_title)] : [:]
    ch_title = channel.of(groovy.json.JsonOutput.toJson(given)).collectFile(name: 'multiqc_title.json')

    emit:
    sections = ch_versions.mix(ch_parameters, ch_methods)
    title = ch_title
}
