//
// A task that fails loses its own result and not the run: what it said last is kept for the row `failed`, the report and
// the console.
//

// 130..145: killed, most often for memory; 104, 175..177: Slurm and file system; 66: out of GPU memory (half the batch then).
// A job that its scheduler killed for memory may leave no exit status at all.
def isRetried(task) {
    return task.exitStatus in ((130..145).toList() + [104, 175, 176, 177, 66, Integer.MAX_VALUE]) && task.attempt <= 3
}

// the folder of this run's failures, a file each
def failureFolder() {
    return workflow.workDir.resolve("failures/${workflow.runName}")
}

// errorStrategy of a task whose loss the run survives; id names its result
def keepReason(task, id) {
    if (isRetried(task)) {
        return 'retry'
    }
    def said = lastWords(task)
    failureFolder().mkdirs()
    failureFolder().resolve("${id}.json").text = groovy.json.JsonOutput.toJson([id: id.toString(), reason: said, folder: task.workDir.toString()])
    log.warn("${task.name} failed: ${said}\n  its folder: ${task.workDir}")
    return 'ignore'
}

// the message of a task: its lines from the last ERROR on, else its last line
def lastWords(task) {
    def file = task.workDir.resolve('.command.err')
    def lines = file.exists() ? file.readLines().collect { line -> line.trim() }.findAll { line -> line } : []
    def at = lines.findLastIndexOf { line -> line.startsWith('ERROR') }
    def words = at >= 0 ? lines.drop(at).join(' ').minus('ERROR: ') : lines ? lines.last() : 'it said nothing'
    return "${words.take(600)} (exit status ${task.exitStatus == Integer.MAX_VALUE ? 'unknown' : task.exitStatus})".toString()
}

// id -> [id, reason, folder] of every task of this run that failed
def failures() {
    def folder = failureFolder()
    return folder.exists() ? folder.listFiles().collect { file -> new groovy.json.JsonSlurper().parse(file) }.collectEntries { row -> [row.id, row] } : [:]
}
