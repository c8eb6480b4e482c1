//
// A digest of the code a stage runs, so that -resume is never stale: Nextflow hashes only the script it starts, not
// what that script imports. The digest follows the `import plumbline...` lines, so a stage re-runs exactly when a
// file that it imports changes.
//

// bin/ of the repository this file lies in, whichever pipeline includes it
def binFolder() {
    return file("${moduleDir}/../../../bin").toRealPath()
}

// the files of bin/plumbline that one Python file imports
def importedFiles(source) {
    def bin = binFolder()
    def matcher = source.text =~ /(?m)^[ \t]*(?:from[ \t]+(plumbline[\w.]*)[ \t]+import[ \t]+(\([^)]*\)|[^\n]+)|import[ \t]+(plumbline[\w.]+))/
    def modules = matcher
        .collect { found ->
            def base = found[1] ?: found[3]
            def names = (found[2] ?: '').findAll(/\w+/)
            [base] + names.collect { name -> "${base}.${name}".toString() }
        }
        .flatten()
    // importing a.b.c runs a, a.b and a.b.c
    return modules
        .collectMany { name -> name.tokenize('.').inits().findAll { parts -> parts }.collect { parts -> parts.join('/') } }
        .unique()
        .collectMany { path -> [bin.resolve("${path}.py"), bin.resolve("${path}/__init__.py")] }
        .findAll { candidate -> candidate.exists() }
}

// every file reachable from the given ones
def importClosure(pending, seen) {
    def fresh = pending.collectMany { source -> importedFiles(source) }.unique().findAll { found -> !seen.contains(found) }
    return fresh ? importClosure(fresh, seen + fresh) : seen
}

// the tables that Python files read from beside them: Path(__file__).with_name("models.csv")
def tablesOf(sources) {
    return sources.collectMany { source -> source.text.findAll(/with_name\("([^"]+)"\)/) { _all, name -> source.resolveSibling(name) } }.unique().findAll { table -> table.exists() }
}

// 12 hex digits for a script of bin/ and, for what it imports by name at run time, further roots: of their code and of the
// tables they read, but for those of which only a part matters (`leftOut`: ['models.csv']), which the caller adds
def codeDigest(roots, leftOut = []) {
    def sources = roots.collect { name -> file("${binFolder()}/${name}", checkIfExists: true) }
    def code = importClosure(sources, sources).sort { source -> source.toString() }
    def tables = tablesOf(code).findAll { table -> !(table.name in leftOut) }.sort { table -> table.toString() }
    return (code + tables).collect { source -> source.text }.join('\n').md5().substring(0, 12)
}

// what lies in an input folder (names, sizes, times), less what a run itself writes, should that lie there; '' for a file.
// Nextflow sees of a folder only that entries come and go: a file that is written anew in its place would be missed by -resume
def folderDigest(path, written = []) {
    if (!path || !path.isDirectory()) {
        return ''
    }
    def given = files("${path}/**").findAll { entry -> !written.any { folder -> entry.startsWith(folder) } }
    def found = given.collect { entry -> [path.relativize(entry).toString(), entry.size(), entry.lastModified()].join(' ') }
    return found.sort().join('\n').md5().substring(0, 12)
}
