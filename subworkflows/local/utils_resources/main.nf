//
// What the steps ask of a scheduler, by size: from what they were measured to use (benchmarks/memory.md, evaluate.md, summary.md), with room to spare.
// A retry multiplies. Sizes are those of dataset.json and of the embedding; in a stub nothing is known and the least is asked.
//

// text matrices (.mtx, in archives) are held in memory, all else is read in blocks
def prepareMemory(input) {
    def share = input.name ==~ /(?i).*\.(h5|h5ad)/ ? 0.05 : 8.0
    return 4.GB + 1.B * (share * input.size())
}

def prepareTime(input) {
    return 2.h + 1.s * (input.size() / 2e6)
}

// a model may hold the counts
def embedMemory(meta, counts) {
    return (meta.device == 'gpu' ? 16.GB : 4.GB) + 1.B * (1.5 * counts.size())
}

// 50 cells per second: a large model on a GPU of some years ago
def embedTime(meta) {
    return 4.h + 1.s * ((meta.n_cells ?: 0) / 50)
}

// counts: a file, or [] for tasks that read none
def evaluateMemory(meta, counts) {
    def per_cell = 2.0 * (meta.n_dimensions ?: 0) + (counts ? 0.3 : 0) * (meta.n_genes ?: 0)
    return 3.GB + 1.B * (per_cell * (meta.n_cells ?: 0))
}

// one score of all models and seeds is held at a time (benchmarks/summary.md); files: a file or a list of them
def summaryMemory(files) {
    return 2.GB + 1.B * (0.6 * totalSize(files))
}

def summaryTime(files) {
    return 2.h + 1.s * (totalSize(files) / 1e6)
}

def totalSize(files) {
    return (files instanceof List ? files : [files]).inject(0L) { total, file -> total + file.size() }
}

def evaluateTime(meta) {
    return 2.h + 1.s * (4e-5 * (meta.n_cells ?: 0) * (meta.n_dimensions ?: 0) * meta.seeds.tokenize(',').size())
}
