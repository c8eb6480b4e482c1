//
// Arguments of a script that hold a user's own words: names, settings, titles. They travel in a file, for a shell would run
// what a name may hold: X'$(command)'.
//

// a map of options as one line of JSON, [ "--dataset=kang", "--set=n_components=50", "--set=input=raw" ]: what the scripts
// read as @arguments.json. An option without a value (null, '' or an empty list) is left out; a list repeats its option.
// A quoted here-document must hold it: there, a line of JSON can neither be expanded nor end the document.
def jsonArguments(options) {
    def given = options.collectMany { name, value -> (value instanceof List ? value : [value]).collect { one -> [name, one] } }
    def words = given.findAll { _name, value -> value != null && value.toString() != '' }.collect { name, value -> "--${name}=${value}".toString() }
    return groovy.json.JsonOutput.toJson(words)
}
