// Which variable does a name mean? jinja2 decides it when it compiles: every macro, loop, set block, ... is a scope;
// what a scope assigns anywhere is its own, starting as a copy of the outer variable of that name.
#ifndef SWIFTKV_TEXT_JINJA_SCOPE_H_
#define SWIFTKV_TEXT_JINJA_SCOPE_H_

#include <optional>

#include "text/jinja/ast.h"
#include "text/jinja/lexer.h"

namespace swiftkv::jinja {

// Sets every name's ref and every scope's loads. Error: a filter or test that does not exist, outside of conditions
// (within, it is an error only when it is reached).
std::optional<SyntaxError> ResolveNames(Function* root);

}  // namespace swiftkv::jinja

#endif  // SWIFTKV_TEXT_JINJA_SCOPE_H_
