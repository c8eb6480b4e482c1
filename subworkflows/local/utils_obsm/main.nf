//
// Names of the embeddings in the obsm of an h5ad, for the key '*' of the sheet of embeddings. Requests are made before the first
// task, where no Python is, and Java has no HDF5 library. So the names in a group, and nothing else, are read here, as anndata
// writes groups (HDF5 File Format Specification 3.0: II.A superblock 0 and 1, III.A-D trees, tables and heaps, IV.A headers).
//

// [ sorted names in a group below the root of an HDF5 file, '' ] or [ [], the reason why there are none ]
def namesInGroup(path, group) {
    try {
        def names = java.nio.file.Files.newByteChannel(path).withCloseable { channel -> namesIn(channel, group) }
        return [names, names ? '' : "its ${group} is empty".toString()]
    }
    catch (Exception failure) {
        return [[], "its list cannot be read (${(failure.cause ?: failure).message})".toString()]
    }
}

def namesIn(channel, group) {
    def address = linksOf(channel, rootAddress(channel))[group]
    return address == null ? [] : linksOf(channel, address).keySet().sort()
}

def require(holds, reason) {
    if (!holds) {
        throw new IllegalArgumentException(reason.toString())
    }
}

// `size` bytes at a place of the file
def bytesAt(channel, place, size) {
    require(size >= 0 && size <= 1_000_000 && place >= 0 && place + size <= channel.size(), 'it is damaged, or not an HDF5 file')
    channel.position(place)
    return filled(channel, java.nio.ByteBuffer.allocate(size as Integer).order(java.nio.ByteOrder.LITTLE_ENDIAN))
}

// a channel gives as much at a time as it likes
def filled(channel, buffer) {
    return buffer.hasRemaining() && channel.read(buffer) > 0 ? filled(channel, buffer) : buffer
}

def textOf(buffer, at, size) {
    return new String(buffer.array(), at as Integer, size as Integer, 'UTF-8')
}

// address of the header of the root group
def rootAddress(channel) {
    def head = bytesAt(channel, 0, 96)
    require(textOf(head, 1, 3) == 'HDF', 'it is not an HDF5 file')
    require(head.get(8) < 2 && head.get(13) == 8, 'it is of a newer kind')
    return head.getLong(head.get(8) == 0 ? 64 : 68)
}

// name -> address of the header, of everything in a group: its header refers to a tree of tables, whose names lie in a heap, or,
// as soon as a name is not ASCII, holds the links themselves if they are few
def linksOf(channel, address) {
    def head = bytesAt(channel, address, 16)
    require(head.get(0) == 1, 'it is of a newer kind')
    return messagesIn(channel, address + 16, head.getInt(8), 0).collectEntries { type, data ->
        require(type != 0x02 || data.getLong(data.get(1) & 1 ? 10 : 2) == -1, 'it is of a newer kind')
        type == 0x11 ? tableLinks(channel, data.getLong(0), data.getLong(8)) : type == 0x06 ? linkOf(data) : [:]
    }
}

// a link message; -1 for one that leads elsewhere
def linkOf(data) {
    def flags = data.get(1)
    def start = 2 + (flags & 8 ? 1 : 0) + (flags & 4 ? 8 : 0) + (flags & 16 ? 1 : 0)
    require(!(flags & 3), 'it is of a newer kind')
    def size = data.get(start) & 0xFF
    return [(textOf(data, start + 1, size)): flags & 8 ? -1L : data.getLong(start + 1 + size)]
}

// [ [type, data], .. ] of a block of a header and of those in which it continues
def messagesIn(channel, start, size, depth) {
    require(depth < 20, 'it is damaged')
    def block = bytesAt(channel, start, size)
    return cuts(block, 0).collectMany { at ->
        def data = bytesAt(channel, start + at + 8, block.getShort(at + 2))
        def type = block.getShort(at)
        type == 0x10 ? messagesIn(channel, data.getLong(0), data.getLong(8), depth + 1) : [[type, data]]
    }
}

// where each message of a block begins
def cuts(block, at) {
    return at + 8 > block.capacity() ? [] : [at] + cuts(block, at + 8 + Math.max(0, block.getShort(at + 2) as Integer))
}

def tableLinks(channel, tree, heap) {
    def about = bytesAt(channel, heap, 32)
    def names = bytesAt(channel, about.getLong(24), about.getLong(8))
    return tables(channel, tree, 0).collectEntries { address ->
        def entries = bytesAt(channel, address + 8, 40 * bytesAt(channel, address, 8).getShort(6))
        steps(entries, 40).collectEntries { at -> [nameAt(names, entries.getLong(at)), entries.getLong(at + 8)] }
    }
}

def nameAt(names, at) {
    def end = (at..<names.capacity()).find { place -> names.get(place as Integer) == 0 }
    return textOf(names, at, end - at)
}

// addresses of the tables below a node of a tree
def tables(channel, node, depth) {
    require(depth < 10, 'it is damaged')
    def head = bytesAt(channel, node, 24)
    def children = bytesAt(channel, node + 24, 16 * head.getShort(6))
    def addresses = steps(children, 16).collect { at -> children.getLong(at + 8) }
    return head.get(5) ? addresses.collectMany { address -> tables(channel, address, depth + 1) } : addresses
}

def steps(buffer, size) {
    return (0..<(buffer.capacity().intdiv(size))).collect { number -> number * size }
}
