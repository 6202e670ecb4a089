/*-------------------------------------------------------------------------
 *
 * ingest_decode_json.cpp
 *	  Find the wanted values of a JSON document, and judge all of it.
 *
 * simdjson's first stage does what is worth vector instructions: it checks
 * UTF-8, finds which quotes delimit strings, refuses control characters
 * inside them, and lists the position of every token (structural character,
 * opening quote, first byte of another scalar).  This file walks that list.
 *
 * simdjson's own walkers do not fit.  Its on-demand one does not look at
 * what is skipped, and a record with garbage in a column that nobody
 * declared has to be a decode error, as it would be for the jsonb type; its
 * DOM one is exact, but writes every string and number to a tape.  The walk
 * here judges everything and keeps nothing but the wanted values' positions,
 * at less cost than on-demand, because most strings need no look at all: see
 * invariant 3.
 *
 * Nothing is read past the document's end, since every token is bounded by
 * the next one.  So the text needs no padding, and is never copied.
 *
 * Depth is unlimited: what is skipped is walked with one bit a level, and
 * recursion only follows declared paths.  Whether a deep value fits its
 * column's type is for the type to say.
 *
 * Invariants:
 *	1. tokens[i] < tokens[i + 1] <= length, and tokens[count] = length.
 *	2. Between the end of a token and the next token there is white space
 *	   only, if the byte after the token is white space or belongs to the
 *	   next token; that byte is what is checked.
 *	3. The closing quote of a string is the last byte that is not white space
 *	   before the next token.  Escapes need a look only if a backslash stands
 *	   before the next token; the next backslash in the document is looked
 *	   for once (backslash_), not once a string.
 *	4. When a node is met again in a document (duplicate key), everything
 *	   captured below it is forgotten: the last duplicate wins as a whole.
 *
 *-------------------------------------------------------------------------
 */
#include "ingest_decode_json.h"

#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include <simdjson.h>

namespace
{

/* Index space kept between documents; a longer one is given back. */
constexpr size_t initial_capacity = 64 * 1024;
constexpr size_t kept_capacity = 1024 * 1024;

/* simdjson's stacks are for its second stage, which is not used. */
constexpr size_t unused_depth = 2;

constexpr uint32_t failed = 0;	/* no value ends before token 1 */

struct Node;

/* An entry of a node's hash table of fields; node NULL: free. */
struct FieldEntry
{
	Node	   *node;
	const uint8_t *name;
	size_t		len;
};

struct Node
{
	std::string name;
	uint32_t	index = 0;
	int			capture = -1;	/* own capture */
	std::vector<int> captures;	/* of the subtree, own included */
	uint64_t	met_in = 0;		/* the document it was last met in */
	std::vector<std::unique_ptr<Node>> fields;
	std::vector<std::unique_ptr<Node>> elements;
	std::vector<FieldEntry> hashed; /* fields; its size a power of two */
	uint64_t	lengths = 0;	/* bit n: a field's length is n modulo 64 */

	Node	   *find(const uint8_t *name, size_t len) const;
};

inline bool
is_space(uint8_t c)
{
	return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

inline bool
is_digit(uint8_t c)
{
	return static_cast<uint8_t>(c - '0') < 10;
}

inline int
hex_digit(uint8_t c)
{
	if (is_digit(c))
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Four hexadecimal digits, or -1. */
inline int
hex_quad(const uint8_t *p)
{
	int			a = hex_digit(p[0]);
	int			b = hex_digit(p[1]);
	int			c = hex_digit(p[2]);
	int			d = hex_digit(p[3]);

	return (a | b | c | d) < 0 ? -1 : a << 12 | b << 8 | c << 4 | d;
}

template<typename T> inline T
load(const uint8_t *p)
{
	T			value;

	memcpy(&value, p, sizeof(value));
	return value;
}

/* Names differ in length, first or last byte, or are compared for nothing. */
inline uint32_t
hash_name(const uint8_t *name, size_t len)
{
	uint32_t	ends = len == 0 ? 0 : name[0] | name[len - 1] << 8;

	return (ends ^ static_cast<uint32_t>(len) << 16) * 2654435761u >> 16;
}

/* Names are short: the call of memcmp() would cost more than its work. */
inline bool
equal_names(const uint8_t *a, const uint8_t *b, size_t len)
{
	if (len >= 8)
	{
		for (size_t i = 0; i + 8 < len; i += 8)
			if (load<uint64_t>(a + i) != load<uint64_t>(b + i))
				return false;
		return load<uint64_t>(a + len - 8) == load<uint64_t>(b + len - 8);
	}
	if (len >= 4)
		return load<uint32_t>(a) == load<uint32_t>(b) &&
			load<uint32_t>(a + len - 4) == load<uint32_t>(b + len - 4);
	for (size_t i = 0; i < len; i++)
		if (a[i] != b[i])
			return false;
	return true;
}

/* The field of a name, or NULL. */
inline Node *
Node::find(const uint8_t *field_name, size_t len) const
{
	size_t		mask = hashed.size() - 1;

	if ((lengths >> (len & 63) & 1) == 0)
		return nullptr;
	for (size_t slot = hash_name(field_name, len) & mask;;
		 slot = (slot + 1) & mask)
	{
		const FieldEntry &entry = hashed[slot];

		if (entry.node == nullptr ||
			(entry.len == len && equal_names(entry.name, field_name, len)))
			return entry.node;
	}
}

/* Is text[0 .. end) a string's inside with well-formed escapes? */
bool
escapes_valid(const uint8_t *text, const uint8_t *end)
{
	while (text < end)
	{
		text = static_cast<const uint8_t *>(memchr(text, '\\', end - text));
		if (text == nullptr)
			return true;
		if (end - text < 2)
			return false;
		if (text[1] == 'u')
		{
			if (end - text < 6 || hex_quad(text + 2) < 0)
				return false;
			text += 6;
		}
		else if (text[1] != '\0' && strchr("\"\\/bfnrt", text[1]) != nullptr)
			text += 2;
		else
			return false;
	}
	return true;
}

/*
 * Scan the number at p, at most to end.  Returns where it stops, or NULL
 * when it is none.
 */
inline const uint8_t *
scan_number(const uint8_t *p, const uint8_t *end, DocValue *value)
{
	bool		negative = false;
	bool		plain = true;
	int64_t		integer = 0;
	const uint8_t *digits;

	if (*p == '-')
	{
		negative = true;
		if (++p == end)
			return nullptr;
	}
	digits = p;
	if (*p == '0')
		p++;
	else
	{
		while (p < end && is_digit(*p))
		{
			integer = static_cast<int64_t>(static_cast<uint64_t>(integer) *
										   10 + (*p - '0'));
			p++;
		}
		if (p == digits)
			return nullptr;
	}
	if (p - digits > 18 || (negative && integer == 0))
		plain = false;
	if (p < end && *p == '.')
	{
		const uint8_t *fraction = ++p;

		while (p < end && is_digit(*p))
			p++;
		if (p == fraction)
			return nullptr;
		plain = false;
	}
	if (p < end && (*p | 0x20) == 'e')
	{
		const uint8_t *exponent;

		p++;
		if (p < end && (*p == '+' || *p == '-'))
			p++;
		exponent = p;
		while (p < end && is_digit(*p))
			p++;
		if (p == exponent)
			return nullptr;
		plain = false;
	}
	value->kind = DOC_NUMBER;
	value->is_integer = plain;
	value->integer = negative ? -integer : integer;
	return p;
}

}								/* namespace */

/*
 * The reader: the tree of wanted paths, and the state of the walk over the
 * document at hand.
 */
struct DocReader
{
public:
	DocStatus	read(const uint8_t *document, size_t len, DocValue *values,
					 int64_t *position) noexcept;
	int			add_path(const DocStep *steps, int nsteps);
	void		seal();

private:
	using		Parser = simdjson::internal::dom_parser_implementation;

	DocStatus	index_tokens();
	DocStatus	walk();
	uint32_t	value(Node *node, uint32_t i);
	uint32_t	object(Node *node, uint32_t i);
	uint32_t	array(Node *node, uint32_t i);
	uint32_t	scalar(uint32_t i, DocValue *out);
	uint32_t	literal(uint32_t i, const char *word, size_t len, DocKind kind,
						DocValue *out);
	uint32_t	skip(uint32_t i);
	uint32_t	unwanted(uint32_t i);
	bool		field(const Node *node, uint32_t i, Node **child);
	bool		escapes(const uint8_t *end);
	bool		string(uint32_t i, DocValue *out);
	void		collect_captures(Node *node);
	void		hash_fields(Node *node);

	/* The byte of token i; none past the last one. */
	inline uint8_t token(uint32_t i) const
	{
		return i < count_ ? document_[tokens_[i]] : 0;
	}

	/*
	 * Is the document of a kind that paths look into?  An object always is,
	 * an array where some path takes the whole document or an element of it.
	 */
	bool fits() const
	{
		uint8_t		c = token(0);

		return c == '{' || root_.capture >= 0 ||
			(c == '[' && !root_.elements.empty());
	}

	inline uint32_t fail(uint32_t i)
	{
		failed_at_ = tokens_[i < count_ ? i : count_];
		return failed;
	}

	/* Does token i, whose text ends at end, end there?  (invariant 2) */
	inline bool ends(uint32_t i, const uint8_t *end) const
	{
		return end == document_ + tokens_[i + 1] || is_space(*end);
	}

	Node		root_;
	int			captures_ = 0;
	std::unique_ptr<Parser> parser_;
	std::vector<uint64_t> levels_;	/* skip(): a bit a level, 1: object */
	std::vector<uint8_t> key_;	/* an escaped key, resolved */

	/* the document at hand */
	const uint8_t *document_ = nullptr;
	size_t		length_ = 0;
	const uint32_t *tokens_ = nullptr;
	uint32_t	count_ = 0;
	const uint8_t *backslash_ = nullptr;	/* next one, or the end */
	DocValue   *values_ = nullptr;
	uint64_t	number_ = 0;	/* of documents read */
	size_t		failed_at_ = 0;
};

/*
 * Check the escapes of a string up to end, the first of which is at
 * backslash_, and look for the next one.
 */
bool
DocReader::escapes(const uint8_t *end)
{
	const uint8_t *stop = document_ + length_;
	const void *next;

	if (!escapes_valid(backslash_, end))
		return false;
	next = memchr(end, '\\', stop - end);
	backslash_ = next != nullptr ? static_cast<const uint8_t *>(next) : stop;
	return true;
}

/*
 * Check the string at token i; with out, say where it is.
 */
inline bool
DocReader::string(uint32_t i, DocValue *out)
{
	const uint8_t *text = document_ + tokens_[i] + 1;
	const uint8_t *end = document_ + tokens_[i + 1];
	bool		escaped = backslash_ < end;

	if (out == nullptr && !escaped)
		return true;
	do
		end--;
	while (is_space(*end));
	if (escaped && !escapes(end))
		return false;
	if (out != nullptr)
	{
		out->kind = DOC_STRING;
		out->text = reinterpret_cast<const char *>(text);
		out->len = end - text;
		out->escaped = escaped;
	}
	return true;
}

uint32_t
DocReader::literal(uint32_t i, const char *word, size_t len, DocKind kind,
				   DocValue *out)
{
	const uint8_t *text = document_ + tokens_[i];

	if (tokens_[i + 1] - tokens_[i] < len || memcmp(text, word, len) != 0 ||
		!ends(i, text + len))
		return fail(i);
	if (out != nullptr)
	{
		out->kind = kind;
		out->text = reinterpret_cast<const char *>(text);
		out->len = len;
	}
	return i + 1;
}

/*
 * Check the scalar at token i, with out also say where it is.  Returns the
 * token after it.
 */
inline uint32_t
DocReader::scalar(uint32_t i, DocValue *out)
{
	const uint8_t *text = document_ + tokens_[i];
	DocValue	ignored;

	switch (token(i))
	{
		case '"':
			return string(i, out) ? i + 1 : fail(i);
		case 't':
			return literal(i, "true", 4, DOC_TRUE, out);
		case 'f':
			return literal(i, "false", 5, DOC_FALSE, out);
		case 'n':
			return literal(i, "null", 4, DOC_NULL, out);
		case '-':
		case '0': case '1': case '2': case '3': case '4':
		case '5': case '6': case '7': case '8': case '9':
			{
				const uint8_t *end = scan_number(text,
												 document_ + tokens_[i + 1],
												 out ? out : &ignored);

				if (end == nullptr || !ends(i, end))
					return fail(i);
				if (out != nullptr)
				{
					out->text = reinterpret_cast<const char *>(text);
					out->len = end - text;
				}
				return i + 1;
			}
		default:
			return fail(i);
	}
}

/*
 * Check the object or array that opens at token i; nothing in it is wanted.
 * Returns the token after it.
 */
uint32_t
DocReader::skip(uint32_t i)
{
	size_t		depth = 0;
	bool		in_object = false;

	for (;;)
	{
		uint8_t		c = token(i);

		/* A value stands at token i. */
		if (c == '{' || c == '[')
		{
			if (depth % 64 == 0 && depth / 64 == levels_.size())
				levels_.push_back(0);
			in_object = c == '{';
			levels_[depth / 64] &= ~(uint64_t{1} << depth % 64);
			levels_[depth / 64] |= uint64_t{in_object} << depth % 64;
			depth++;
			i++;
			if (token(i) != (in_object ? '}' : ']'))
			{
				if (!in_object)
					continue;
				goto key;
			}
		}
		else
		{
			i = scalar(i, nullptr);
			if (i == failed)
				return failed;
		}

		/* After a value, or at the end of an empty container. */
		while (token(i) != ',')
		{
			if (token(i) != (in_object ? '}' : ']'))
				return fail(i);
			i++;
			if (--depth == 0)
				return i;
			in_object = levels_[(depth - 1) / 64] >> (depth - 1) % 64 & 1;
		}
		i++;
		if (!in_object)
			continue;
key:
		if (token(i) != '"' || token(i + 1) != ':' || !string(i, nullptr))
			return fail(i);
		i += 2;
	}
}

/* Check the value at token i, which is not wanted. */
inline uint32_t
DocReader::unwanted(uint32_t i)
{
	uint8_t		c = token(i);

	return c == '{' || c == '[' ? skip(i) : scalar(i, nullptr);
}

/*
 * Check the key at token i, and find the child of node that it names; NULL
 * when none.  False when it is no string.
 */
inline bool
DocReader::field(const Node *node, uint32_t i, Node **child)
{
	DocValue	key;
	const uint8_t *name;
	size_t		len;

	*child = nullptr;
	if (!string(i, &key))
		return false;
	name = reinterpret_cast<const uint8_t *>(key.text);
	len = key.len;
	if (key.escaped)
	{
		key_.resize(len);
		if (doc_unescape(key.text, key.len,
						 reinterpret_cast<char *>(key_.data()),
						 &len) != DOC_UNESCAPED)
			return true;		/* no name in PostgreSQL can equal it */
		name = key_.data();
	}
	*child = node->find(name, len);
	return true;
}

uint32_t
DocReader::object(Node *node, uint32_t i)
{
	i++;
	if (token(i) == '}')
		return i + 1;
	for (;;)
	{
		Node	   *child;

		if (token(i) != '"' || token(i + 1) != ':' || !field(node, i, &child))
			return fail(i);
		i += 2;
		if (child != nullptr)
			i = value(child, i);
		else if (token(i) == '"' &&
				 backslash_ >= document_ + tokens_[i + 1])
			i++;				/* a string without escapes */
		else
			i = unwanted(i);
		if (i == failed)
			return failed;
		switch (token(i))
		{
			case ',':
				i++;
				break;
			case '}':
				return i + 1;
			default:
				return fail(i);
		}
	}
}

uint32_t
DocReader::array(Node *node, uint32_t i)
{
	uint32_t	index = 0;

	i++;
	if (token(i) == ']')
		return i + 1;
	for (;;)
	{
		Node	   *child = nullptr;

		for (const auto &element : node->elements)
			if (element->index == index)
				child = element.get();
		i = child != nullptr ? value(child, i) : unwanted(i);
		if (i == failed)
			return failed;
		index++;
		switch (token(i))
		{
			case ',':
				i++;
				break;
			case ']':
				return i + 1;
			default:
				return fail(i);
		}
	}
}

/* Take the value at token i, which node stands for. */
uint32_t
DocReader::value(Node *node, uint32_t i)
{
	uint8_t		c = token(i);
	uint32_t	start = tokens_[i];
	DocValue   *out = node->capture < 0 ? nullptr : values_ + node->capture;

	/* invariant 4 */
	if (node->met_in == number_)
		for (int n : node->captures)
			values_[n].kind = DOC_MISSING;
	node->met_in = number_;

	if (c == '"')
		return string(i, out) ? i + 1 : fail(i);
	if (c != '{' && c != '[')
		return scalar(i, out);
	if (c == '{' && !node->fields.empty())
		i = object(node, i);
	else if (c == '[' && !node->elements.empty())
		i = array(node, i);
	else
		i = skip(i);
	if (i != failed && out != nullptr)
	{
		out->kind = c == '{' ? DOC_OBJECT : DOC_ARRAY;
		out->text = reinterpret_cast<const char *>(document_ + start);
		out->len = tokens_[i - 1] + 1 - start;
	}
	return i;
}

DocStatus
DocReader::walk()
{
	const void *found = memchr(document_, '\\', length_);
	uint32_t	after;

	number_++;
	backslash_ = found != nullptr ? static_cast<const uint8_t *>(found) :
		document_ + length_;
	after = value(&root_, 0);
	if (after == failed)
		return DOC_NOT_JSON;
	if (after != count_)
	{
		fail(after);
		return DOC_NOT_JSON;
	}
	return fits() ? DOC_OK : DOC_NOT_OBJECT;
}

/* simdjson's first stage. */
DocStatus
DocReader::index_tokens()
{
	simdjson::error_code error = simdjson::SUCCESS;

	if (parser_ == nullptr)
		error = simdjson::get_active_implementation()->
			create_dom_parser_implementation(initial_capacity, unused_depth,
											 parser_);
	if (error == simdjson::SUCCESS && parser_->capacity() < length_)
		error = parser_->set_capacity(length_);
	if (error != simdjson::SUCCESS)
		return DOC_NO_MEMORY;
	error = parser_->stage1(document_, length_,
							simdjson::stage1_mode::regular);
	switch (error)
	{
		case simdjson::SUCCESS:
			tokens_ = parser_->structural_indexes.get();
			count_ = parser_->n_structural_indexes;
			parser_->structural_indexes[count_] =
				static_cast<uint32_t>(length_);
			return DOC_OK;
		case simdjson::EMPTY:
			return DOC_EMPTY;
		case simdjson::UTF8_ERROR:
			return DOC_NOT_UTF8;
		default:
			failed_at_ = SIZE_MAX;
			return DOC_NOT_JSON;
	}
}

DocStatus
DocReader::read(const uint8_t *document, size_t len, DocValue *values,
				int64_t *position) noexcept
{
	DocStatus	status;

	*position = -1;
	if (len == 0)
		return DOC_EMPTY;
	if (len >= UINT32_MAX)
		return DOC_NO_MEMORY;
	document_ = document;
	length_ = len;
	values_ = values;
	for (int n = 0; n < captures_; n++)
		values[n].kind = DOC_MISSING;
	failed_at_ = SIZE_MAX;
	try
	{
		status = index_tokens();
		if (status == DOC_OK)
			status = walk();
	}
	catch (...)
	{
		status = DOC_NO_MEMORY;
	}
	if (status == DOC_NOT_JSON && failed_at_ != SIZE_MAX)
		*position = static_cast<int64_t>(failed_at_);
	if (len > kept_capacity)
	{
		parser_.reset();
		levels_ = std::vector<uint64_t>();
	}
	return status;
}

int
DocReader::add_path(const DocStep *steps, int nsteps)
{
	Node	   *node = &root_;

	for (int n = 0; n < nsteps; n++)
	{
		const DocStep &step = steps[n];
		auto	   &children = step.name ? node->fields : node->elements;
		Node	   *next = nullptr;

		for (const auto &child : children)
			if (step.name ? child->name.compare(0, std::string::npos,
												step.name,
												step.name_len) == 0 :
				child->index == step.index)
				next = child.get();
		if (next == nullptr)
		{
			children.push_back(std::make_unique<Node>());
			next = children.back().get();
			if (step.name)
				next->name.assign(step.name, step.name_len);
			next->index = step.index;
		}
		node = next;
	}
	if (node->capture < 0)
		node->capture = captures_++;
	return node->capture;
}

/* Tell every node which captures lie in its subtree. */
void
DocReader::collect_captures(Node *node)
{
	node->captures.clear();
	if (node->capture >= 0)
		node->captures.push_back(node->capture);
	for (auto children : {&node->fields, &node->elements})
		for (const auto &child : *children)
		{
			collect_captures(child.get());
			node->captures.insert(node->captures.end(),
								  child->captures.begin(),
								  child->captures.end());
		}
}

void
DocReader::hash_fields(Node *node)
{
	size_t		size = 4;

	while (size < node->fields.size() * 4)
		size *= 2;
	node->hashed.assign(size, FieldEntry{});
	for (const auto &child : node->fields)
	{
		const uint8_t *name =
			reinterpret_cast<const uint8_t *>(child->name.data());
		size_t		len = child->name.size();
		size_t		slot = hash_name(name, len) & (size - 1);

		while (node->hashed[slot].node != nullptr)
			slot = (slot + 1) & (size - 1);
		node->hashed[slot] = FieldEntry{child.get(), name, len};
		node->lengths |= uint64_t{1} << (len & 63);
		hash_fields(child.get());
	}
	for (const auto &child : node->elements)
		hash_fields(child.get());
}

void
DocReader::seal()
{
	collect_captures(&root_);
	hash_fields(&root_);
}

DocReader *
doc_reader_create(void)
{
	return new (std::nothrow) DocReader;
}

void
doc_reader_free(DocReader *reader)
{
	delete reader;
}

int
doc_reader_add_path(DocReader *reader, const DocStep *steps, int nsteps)
{
	try
	{
		return reader->add_path(steps, nsteps);
	}
	catch (...)
	{
		return -1;
	}
}

bool
doc_reader_seal(DocReader *reader)
{
	try
	{
		reader->seal();
		return true;
	}
	catch (...)
	{
		return false;
	}
}

DocStatus
doc_reader_read(DocReader *reader, const char *document, size_t len,
				DocValue *values, int64_t *position)
{
	return reader->read(reinterpret_cast<const uint8_t *>(document), len,
						values, position);
}
