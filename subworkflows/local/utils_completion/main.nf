//
// What a run says when it ends, and to whom: a line on the console, an e-mail (--email), a message to a chat (--hook_url).
// Nextflow's own sendMail sends the e-mail: by SMTP where the configuration names a server (mail.smtp.host), else with the
// sendmail or mail of the machine. nf-core's completionEmail knows no SMTP, and does not look whether its sendmail failed.
// Nothing here may change how a run ends: what cannot be sent is a warning that says why.
//

include { failures } from '../utils_failures/main'

// called from workflow.onComplete. made: what the run has made so far, as far as it came: [report: path, summary: path]
def announce(opts, made) {
    // ./plumb asks for a preview before it makes environments: nobody wants a message of that
    if (workflow.preview) {
        return null
    }
    def facts = runFacts(opts, made)
    log.info(completionLine(facts, opts))
    def to = opts.email ?: (facts.success ? null : opts.email_on_fail)
    if (to) {
        mailRun(to, facts, opts, made)
    }
    if (opts.hook_url) {
        postRun(opts.hook_url, facts)
    }
}

// what every message is made of: texts by name. The address of a hook is a key to it, and is in none
def runFacts(opts, made) {
    def lost = failures().values().toList()
    // Nextflow calls a run that ignored failed tasks a success until it exits (workflow.failOnIgnore)
    def success = workflow.success && !lost
    def problems = success ? [] : [workflow.errorMessage, workflow.errorReport].findAll { text -> text } + lost.collect { row -> "${row.id}: ${row.reason}".toString() }
    return [
        name: workflow.manifest.name,
        version: workflow.manifest.version,
        success: success,
        outcome: success ? 'completed successfully' : lost && made.report ? "completed, but ${lost.size()} ${lost.size() == 1 ? 'result' : 'results'} failed".toString() : 'failed',
        problems: problems.unique().take(10).collect { text -> text.toString().take(2000) }.join('\n\n'),
        summary: made.summary ? made.summary.text : '',
        details: [
            'Run': workflow.runName,
            'Started': moment(workflow.start),
            'Ended': moment(workflow.complete),
            'Duration': workflow.duration,
            'Tasks': "${workflow.stats.succeedCount} done, ${workflow.stats.cachedCount} cached, ${workflow.stats.failedCount} failed",
            'Results': file(opts.outdir).toUriString(),
            'Work folder': workflow.workDir.toUriString(),
            'Command': opts.hook_url ? workflow.commandLine.replace(opts.hook_url, '***') : workflow.commandLine,
            'Profile': workflow.profile,
            'Revision': [workflow.revision, workflow.commitId].findAll { text -> text }.join(' '),
            'Nextflow': workflow.nextflow.version,
        ].findAll { _name, value -> value?.toString() }.collectEntries { name, value -> [name, value.toString()] },
    ]
}

def moment(time) {
    return time.format(java.time.format.DateTimeFormatter.ofPattern('yyyy-MM-dd HH:mm:ss xxx'))
}

// coloured as nf-core's, unless --monochrome_logs; Nextflow itself leaves colours out where there is no terminal
def completionLine(facts, opts) {
    def colour = facts.success ? '\033[0;32m' : '\033[0;31m'
    return opts.monochrome_logs ? "[${facts.name}] ${facts.outcome}" : "\033[0;35m[${facts.name}] ${colour}${facts.outcome}\033[0m"
}

def mailRun(to, facts, opts, made) {
    try {
        def text = rendered('email_template.txt', facts)
        def html = rendered('email_template.html', escaped(facts))
        keepMail(opts, text, html)
        def mail = [to: to, subject: "[${facts.name}] ${facts.details['Run']}: ${facts.outcome}".toString(), text: text]
        sendMail(mail + (opts.plaintext_email ? [:] : [body: html]) + attachment(opts, made))
        log.info("[${facts.name}] sent an e-mail to ${to}")
    }
    catch (Exception failure) {
        log.warn("The e-mail to ${to} was not sent: ${reasonOf(failure)}. Name a mail server in a configuration given with -c (mail { smtp.host = '...' }), or install sendmail; the text is in ${opts.outdir}/pipeline_info.")
    }
}

// one of the templates of assets/, filled
def rendered(template, facts) {
    return new groovy.text.GStringTemplateEngine().createTemplate(file("${moduleDir}/../../../assets/${template}").text).make(facts).toString()
}

// texts of the run (a command, an error) as HTML
def escaped(facts) {
    return facts.collectEntries { name, value -> [name, value instanceof Map ? escaped(value) : value instanceof String ? groovy.xml.XmlUtil.escapeXml(value) : value] }
}

// the mail as files, as in nf-core: for a run whose mail got lost
def keepMail(opts, text, html) {
    def folder = file("${opts.outdir}/pipeline_info")
    folder.mkdirs()
    folder.resolve('pipeline_report.txt').text = text
    folder.resolve('pipeline_report.html').text = html
}

// the report, if it is small enough for a mail
def attachment(opts, made) {
    def fits = made.report && made.report.size() <= (opts.max_multiqc_email_size as MemoryUnit).toBytes()
    return fits ? [attach: made.report.toString()] : [:]
}

def postRun(url, facts) {
    try {
        def client = java.net.http.HttpClient.newBuilder().connectTimeout(java.time.Duration.ofSeconds(10)).build()
        def request = java.net.http.HttpRequest.newBuilder(java.net.URI.create(url))
            .timeout(java.time.Duration.ofSeconds(20))
            .header('Content-Type', 'application/json')
            .POST(java.net.http.HttpRequest.BodyPublishers.ofString(groovy.json.JsonOutput.toJson(chatMessage(url, facts))))
            .build()
        def answer = client.send(request, java.net.http.HttpResponse.BodyHandlers.ofString())
        if (!(answer.statusCode() in (200..299))) {
            log.warn("The message to --hook_url was refused with status ${answer.statusCode()}: ${answer.body().take(200)}")
        }
    }
    catch (Exception failure) {
        log.warn("The message to --hook_url was not sent: ${reasonOf(failure)}")
    }
}

// what Slack takes, or else what Microsoft Teams does (an adaptive card)
def chatMessage(url, facts) {
    def title = "${facts.name} ${facts.version}: ${facts.outcome}".toString()
    def text = (facts.problems ?: facts.summary).take(1500)
    if (java.net.URI.create(url).host.endsWith('slack.com')) {
        def fields = facts.details.collect { name, value -> [title: name, value: value, short: value.size() < 40] }
        return [attachments: [[fallback: title, color: facts.success ? 'good' : 'danger', title: title, text: text, fields: fields]]]
    }
    def body = [
        [type: 'TextBlock', size: 'Large', weight: 'Bolder', wrap: true, text: title, color: facts.success ? 'Good' : 'Attention']
    ]
    body += text ? [[type: 'TextBlock', wrap: true, text: text]] : []
    body += [[type: 'FactSet', facts: facts.details.collect { name, value -> [title: name, value: value] }]]
    def card = [
        '$schema': 'http://adaptivecards.io/schemas/adaptive-card.json',
        type: 'AdaptiveCard',
        version: '1.4',
        msteams: [width: 'Full'],
        body: body,
    ]
    return [type: 'message', attachments: [[contentType: 'application/vnd.microsoft.card.adaptive', contentUrl: null, content: card]]]
}

// why something could not be sent, with the cause below it
def reasonOf(failure) {
    def texts = [failure, failure.cause].findAll { one -> one }.collect { one -> one.message ?: one.class.simpleName }
    return texts.unique().join(': ').readLines().join(' ').take(300)
}
