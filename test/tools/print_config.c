/* print_config.c: what the library says it was built with; for test/tools/check_tuning.py. */
#include <weft.h>

#include <stdio.h>

int main(void)
{
	puts(weft_build_config());
	return 0;
}
